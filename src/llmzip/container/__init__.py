"""The archive format: frames written, read, found and salvaged, without knowing how they are coded."""
