"""Layout of the mixer: sizes of a frame's tables, numbers of contexts, inputs and weight sets.

Plain numbers, so that listing an archive needs neither NumPy nor numba.
"""

from __future__ import annotations

CONTEXTS = 18  # of the mixer, see llmzip.mixing.mixer
CONTEXTS_WITHOUT_MODEL = 13
SLOT_BYTES = 16
SLOT_BITS = (12, 21)  # at least and at most
LARGE_FRAME = 1 << 24  # bytes; a larger one has half the slots, as its text takes the memory
MATCHES = 2
MATCH_BITS = (12, 22)
PROGRAM_BYTES = 150 << 20  # the interpreter with its libraries and compiled kernels
MODEL_BYTES = 50 << 20  # a small model's weights and tables
BYTES_PER_WEIGHT = 7  # of a published model, with its windows and buffers
MOST_DICTIONARY_BYTES = 1 << 24  # of the text in a model


def slots_for(size: int) -> int:
    """Return the number of slots of a context for a frame of `size` bytes, a power of two."""
    return 1 << min(max(size.bit_length(), SLOT_BITS[0]), SLOT_BITS[1] - (size > LARGE_FRAME))


def matches_for(size: int) -> int:
    """Return the number of hashes that a match model remembers for a frame of `size` bytes, a power of two."""
    return 1 << min(max(size.bit_length(), MATCH_BITS[0]), MATCH_BITS[1])


def needed(size: int, *, model: int) -> int:
    """Return the memory in bytes, about, that decompressing a frame of `size` bytes takes.

    `model` is what the language model takes, 0 for none.
    """
    contexts = CONTEXTS if model else CONTEXTS_WITHOUT_MODEL
    tables = slots_for(size) * contexts * SLOT_BYTES + matches_for(size) * MATCHES * 4
    return PROGRAM_BYTES + model + tables + 5 * size  # history of two bytes each, payload, content twice


# Contexts, by number: the decision with the likeliest token (alone without a model), with the lane's last 1 to 3;
# then byte contexts, at their end those that frames without a model leave out: there the decision with the last bytes
# is a token context, and local contexts gain little (docs/experiments/2026-11-25-local-contexts.md).
TOKEN_CONTEXTS = 4
BYTE_CONTEXTS = CONTEXTS - TOKEN_CONTEXTS

# Inputs of the mixer: a constant, two for each match model, two for each context, the language model's four.
MATCH_INPUTS = 1
CONTEXT_INPUTS = MATCH_INPUTS + 2 * MATCHES
INPUTS = 48  # whole vectors
INPUTS_OF_BYTES = 32  # those in use without a language model
MODEL_INPUTS = INPUTS - 4

# Weight sets and the contexts that select among them: the best match and the model's probability; the bits known of
# the byte; the number of contexts that have a bit history and the model's probability; the last byte; and, with a model
# only, the last token and the likeliest next one. Each selector has its range of numbers.
SELECTORS = 6
SELECTORS_WITHOUT_MODEL = 4
WEIGHT_SET_STARTS = (0, 256, 768, 1024, 1536, 2048)
WEIGHT_SETS = 2304
FINAL_WEIGHT_SETS = 512
WEIGHT_BITS = 16  # after the point of a weight in use; STORED_BITS of a stored one
STORED_BITS = 12
APM_ENTRIES = 17  # at stretched probabilities 512 apart
MODEL_APMS = 2  # of the model's probability, by the history of a context
