"""How many threads code a frame, and which lanes each of them runs the network over."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np


def usable_cores() -> int:
    """Return the number of processor cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def groups_of(lanes: int, workers: int) -> list[slice]:
    """Split the lanes evenly among at most `workers` threads, in order; no group is empty."""
    bounds = np.linspace(0, lanes, min(lanes, workers) + 1).astype(int).tolist()
    return [slice(a, b) for a, b in pairwise(bounds)]
