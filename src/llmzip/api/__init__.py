"""The Python interface: one-shot functions, streams, file objects, and what is in an archive."""
