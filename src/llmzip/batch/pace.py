"""How fast files are worked off, about: for sizing batches and for warnings."""

from __future__ import annotations

from contextlib import suppress

from llmzip.errors import LlmzipError
from llmzip.model import registry

# Bytes of content that a thread compresses in a minute.
PER_MINUTE = {"none": 10_000_000, "default": 3_000_000, "published": 90_000}


def pace_of(model: str | None) -> str:
    """Return which of PER_MINUTE is that of a model; a model that cannot be loaded counts as the default one."""
    if model == registry.NONE:
        return "none"
    with suppress(LlmzipError, OSError):  # compressing will say why
        if model not in (None, registry.DEFAULT) and registry.load(model).published:
            return "published"
    return "default"
