"""Run the command line as ``python -m llmzip``."""

from llmzip.cli import main

main()
