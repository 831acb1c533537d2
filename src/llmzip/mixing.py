"""Placeholder of the adaptive stage."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.jit import jit


class Maps(NamedTuple):
    """Hold the state."""

    trace: npt.NDArray[np.int64]


def new_maps(nodes: int, tokens: int) -> Maps:
    """Return fresh state."""
    return Maps(np.zeros(8, np.int64))


@jit
def refine(p1, node, kind, previous, maps):
    """Return the refined probability."""
    return p1


@jit
def learn(bit, maps):
    """Adapt to the bit."""
