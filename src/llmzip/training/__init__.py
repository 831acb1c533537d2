"""Train vocabularies and models; nothing here is needed to compress or decompress."""
