"""Exact inference of published causal language models of the Llama kind, as docs/FORMAT.md's *Llama* specifies it."""
