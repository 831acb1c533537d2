"""Lanes: a frame's tokens cut into parts that advance together, one token each per step.

The network then works on as many rows at once as there are lanes. Lanes differ by at most one token, so that
all end within one step; earlier lanes are the longer ones.
"""

from __future__ import annotations

import numpy as np

# (tokens, lanes for a frame of at least that many tokens). More lanes make decoding faster and files larger, by about
# 2 % from 1 to 8 and 1 % more to 32: each starts cold, and the text just before it is in another lane
# (docs/experiments/2026-11-24-lanes.md).
LANES_FROM_TOKENS = ((1 << 22, 64), (1 << 20, 32), (1 << 17, 16), (1 << 16, 8), (1 << 14, 4), (1 << 12, 2), (0, 1))
# With a published model a lane costs about 20 bytes, and steps take long, as weights come from memory: by bytes, so
# that text takes the same time in any language (docs/experiments/2026-11-27-pretrained.md).
LANES_OF_PUBLISHED_FROM_BYTES = ((1 << 22, 32), (1 << 18, 16), (1 << 16, 8), (1 << 15, 4), (0, 1))
MAX_LANES = 64


def lanes_for(tokens: int) -> int:
    """Return the number of lanes for a frame of `tokens` tokens, a power of two."""
    return next(lanes for least, lanes in LANES_FROM_TOKENS if tokens >= least)


def lanes_of_published(size: int) -> int:
    """Return the number of lanes for a frame of `size` bytes with a published model, a power of two."""
    return next(lanes for least, lanes in LANES_OF_PUBLISHED_FROM_BYTES if size >= least)


def cut(tokens: np.ndarray, lanes: int) -> np.ndarray:
    """Cut int32 tokens ``[n]`` into the grid ``[T, lanes]``; -1 fills the last step of the shorter lanes."""
    steps, longer = -(-len(tokens) // lanes), len(tokens) % lanes or lanes
    grid = np.full((lanes, steps), -1, np.int32)
    split = longer * steps
    grid[:longer] = tokens[:split].reshape(longer, steps)
    if longer < lanes:
        grid[longer:, : steps - 1] = tokens[split:].reshape(lanes - longer, steps - 1)
    return np.ascontiguousarray(grid.T)


def inputs_of(grid: np.ndarray, bos: int, at: int = 0, steps: int | None = None) -> np.ndarray:
    """Return what the network reads when it predicts `steps` rows of `grid` from `at` on, to the end if None.

    That is BOS, then the tokens one step later.
    """
    predicted = grid[at : None if steps is None else at + steps]
    inputs = np.empty_like(predicted)
    inputs[0] = np.maximum(grid[at - 1], 0) if at else bos
    np.maximum(predicted[:-1], 0, out=inputs[1:])
    return inputs
