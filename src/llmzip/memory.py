"""How large the tables of a frame are: plain numbers, so that listing an archive needs neither NumPy nor numba."""

from __future__ import annotations

CONTEXTS = 18  # of the mixer, see llmzip.mixing
CONTEXTS_WITHOUT_MODEL = 13
SLOT_BYTES = 16
SLOT_BITS = (12, 21)  # at least and at most
LARGE_FRAME = 1 << 24  # bytes; a larger one has half the slots, as its text takes the memory
MATCHES = 2
MATCH_BITS = (12, 22)
PROGRAM_BYTES = 150 << 20  # the interpreter with its libraries and compiled kernels
MODEL_BYTES = 50 << 20  # a shipped model's weights and tables
MOST_DICTIONARY_BYTES = 1 << 24  # of the text in a model


def slots_for(size: int) -> int:
    """Return how many slots a context gets for a frame of `size` bytes, a power of two."""
    return 1 << min(max(size.bit_length(), SLOT_BITS[0]), SLOT_BITS[1] - (size > LARGE_FRAME))


def matches_for(size: int) -> int:
    """Return how many hashes a match model remembers for a frame of `size` bytes, a power of two."""
    return 1 << min(max(size.bit_length(), MATCH_BITS[0]), MATCH_BITS[1])


def needed(size: int, *, model: bool) -> int:
    """Return about how many bytes of memory it takes to decompress a frame of `size` bytes."""
    contexts = CONTEXTS if model else CONTEXTS_WITHOUT_MODEL
    tables = slots_for(size) * contexts * SLOT_BYTES + matches_for(size) * MATCHES * 4
    return PROGRAM_BYTES + model * MODEL_BYTES + tables + 5 * size  # history of two bytes each, payload, content twice
