"""Hadamard turns: every 64 channels become 64 sums and differences of them, so that no channel sticks out.

Rows turned like that lose little in 8 bits, of which the few large channels of language models would else leave the
others none (QuaRot, Ashkboos et al. 2024). A turn is its own inverse up to a factor, and most of the turns that a
network needs are inside its matrices (:mod:`llmzip.pretrained.convert`).
"""

from __future__ import annotations

import numpy as np

from llmzip.jit import inlined

MOST = 64  # channels


def turned_at_once(width: int) -> int:
    """Return how many channels are turned at once: the largest power of two, at most 64, that divides `width`."""
    return min(MOST, width & -width)


@inlined
def turn(row, size):
    """Turn each `size` channels of float32 `row` in place, unscaled (Turn 1-4)."""
    half = 1
    while half < size:
        for first in range(0, row.shape[0], 2 * half):
            for i in range(first, first + half):
                a, b = row[i], row[i + half]
                row[i] = np.float32(a + b)
                row[i + half] = np.float32(a - b)
        half *= 2
