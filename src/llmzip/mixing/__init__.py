"""Context mixing: what the file itself shows, mixed with the language model."""
