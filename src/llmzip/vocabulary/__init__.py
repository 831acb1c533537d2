"""Tokens: the byte-pair tokenizer and the decision tree of its vocabulary."""
