"""The state that a session of the network keeps from step to step, and its buffers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llmzip.network.packed import WIDEST_BLOCK
from llmzip.network.weights import Weights


class State(NamedTuple):
    """What lanes keep from step to step, each float32 ``[layers, B, d]``."""

    h: np.ndarray
    last_token: np.ndarray
    last_channel: np.ndarray


class Buffers(NamedTuple):
    """The intermediate rows of one call; products have room for whole blocks of columns."""

    x: np.ndarray
    q: np.ndarray
    q_low: np.ndarray
    q_hidden: np.ndarray
    s: np.ndarray
    acc_in: np.ndarray
    acc_up: np.ndarray
    acc: np.ndarray
    acc_head: np.ndarray
    acc_low: np.ndarray
    scratch: np.ndarray
    scratch_hidden: np.ndarray


def new_state(weights: Weights, lanes: int) -> State:
    """Return the state before a text."""
    shape = (len(weights.layers), lanes, weights.width)
    return State(*(np.zeros(shape, np.float32) for _ in range(3)))


def new_buffers(weights: Weights, rows: int) -> Buffers:
    """Return buffers for calls of `rows` rows."""

    def acc(columns: int) -> np.ndarray:
        # Zeros: backends without blocks leave the last columns as they are, and plain Python warns of overflows.
        return np.zeros((rows, -(-columns // WIDEST_BLOCK) * WIDEST_BLOCK), np.int32)

    d, hidden = weights.width, weights.hidden
    return Buffers(
        x=np.empty((rows, d), np.float32),
        q=np.empty((rows, d), np.int16),
        q_low=np.empty((rows, d), np.int16),
        q_hidden=np.empty((rows, hidden), np.int16),
        s=np.empty(rows, np.float32),
        acc_in=acc(3 * d),
        acc_up=acc(hidden),
        acc=acc(d),
        acc_head=acc(len(weights.head_cluster.q)),
        acc_low=acc(len(weights.head_cluster.q)),
        scratch=np.empty((2, d), np.float32),
        scratch_hidden=np.empty(hidden, np.float32),
    )
