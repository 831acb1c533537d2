"""From tokens and probabilities to bits and back."""
