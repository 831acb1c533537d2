"""Many files: which ones, what becomes of each, and what is reported."""
