"""The byte contexts: hashes of the bytes before the next one, each of another part or property of them."""

from __future__ import annotations

import numpy as np

from llmzip.jit import inlined

MASK32 = 0xFFFFFFFF

# Odd and below 2^30: products with 32-bit values stay within int64.
MULTIPLIER_A, MULTIPLIER_B = 0x2C1B3C6D, 0x297A2D39
# Local contexts begin anew in each block of 2^NEAR_BITS bytes; longer contexts have larger blocks.
NEAR_BITS = 13


@inlined
def mixed_hash(a, b):
    """Return 32 bits that depend on `a` and `b`, both in 0 .. 2^32 - 1."""
    value = (a * MULTIPLIER_A + b * MULTIPLIER_B) & MASK32
    value ^= value >> 15
    value = (value * MULTIPLIER_B) & MASK32
    return value ^ (value >> 13)


@inlined
def byte_contexts(lane, buffer, model, hashes):
    """Write the contexts made of bytes, int64[BYTE_CONTEXTS], 32 bits each.

    With a language model most of the short and the long ones are local: the model predicts better what is usual
    elsewhere, but not what is repeated near by (docs/experiments/2026-11-25-local-contexts.md).
    """
    text = buffer.text
    last, older = lane["last4"], lane["older4"]
    one = last & 255
    at, before = lane["at"], lane["line_before"]
    column = at - lane["line"]
    above = 0
    if before >= 0 and before + column < lane["line"]:
        above = np.int64(text[before + column] & 255) + 1
    expected = lane["expected"][0]
    length = lane["length"][0]
    if expected < 0:
        expected = lane["expected"][1]
        length = lane["length"][1]
    known = 0 if expected < 0 else min(length, 15) + 1
    near = at >> NEAR_BITS
    hashes[0] = mixed_hash(last, 4)
    hashes[1] = mixed_hash(last, (older & 0xFFFF) + 300)
    if model:
        hashes[0] = mixed_hash(hashes[0], (near >> 1) + 5)
        hashes[1] = mixed_hash(hashes[1], (near >> 2) + 5)
    hashes[2] = mixed_hash(lane["word"], one + 600)
    hashes[3] = mixed_hash(lane["word"], lane["word_before"])
    hashes[4] = mixed_hash(above, (one << 8) + min(column, 255))
    hashes[5] = mixed_hash(expected + 1, (known << 8) + one)
    hashes[6] = mixed_hash(lane["indent"], lane["word"])
    hashes[7] = mixed_hash(lane["shape"], one)
    hashes[8] = mixed_hash(lane["marks"], one + 2000)
    hashes[9] = mixed_hash(mixed_hash(lane["cell"], one + 1200), near + 5)
    hashes[10] = mixed_hash(lane["word"], near + 5)
    hashes[11] = mixed_hash(lane["tag"], lane["word"])
    hashes[12] = mixed_hash(last & 0xFFFF, near + 5)
    hashes[13] = mixed_hash(last & 0xFFFFFF, near + 5)
    lane["fresh"] = 1
