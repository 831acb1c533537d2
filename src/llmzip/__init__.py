"""Compress text without loss with a small recurrent language model."""

__version__ = "0.1.0"
