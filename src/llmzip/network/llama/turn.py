"""Hadamard turns: 64 channels at a time become 64 sums and differences of them, so that no channel sticks out.

Rows turned like that lose little in 8 bits, of which the few large channels of language models would else leave the
others none (QuaRot, Ashkboos et al. 2024). A turn is its own inverse up to a factor, and most of the turns that a
network needs are inside its matrices (:mod:`llmzip.pretrained.convert`).
"""

from __future__ import annotations

import numpy as np

from llmzip.jit import inlined, unowned

MOST = 64  # channels


def turned_at_once(width: int) -> int:
    """Return how many channels are turned at once: the largest power of two, at most 64, that divides `width`."""
    return min(MOST, width & -width)


@inlined
def turn(row, size):
    """Turn float32 `row`, seen as ``[size, n]``, along its first axis in place, unscaled (Turn 1-4).

    Channels that are far apart are turned together: so the inner loop runs over neighbours.
    """
    half = row.shape[0] // size
    while half < row.shape[0]:
        for first in range(0, row.shape[0], 2 * half):
            low, high = unowned(row[first : first + half]), unowned(row[first + half : first + 2 * half])
            for i in range(half):
                a, b = low[i], high[i]
                low[i] = np.float32(a + b)
                high[i] = np.float32(a - b)
        half *= 2
