"""Model files, and where they are found."""
