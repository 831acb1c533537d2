"""Import published language models: from GGUF files and Hugging Face folders to exact model files."""
