"""What the gates of lstm and gru have in common, one rounding per line."""

from __future__ import annotations

import numpy as np

from llmzip.jit import jit
from llmzip.network.kernels import HALF, LINEAR_BOUND, ONE


@jit
def half_ratio(x):
    """Return half of x / (1 + |x|), the odd part of the algebraic sigmoid (Half ratio 1-3)."""
    b = np.float32(np.abs(x) + ONE)
    b = np.float32(x / b)
    return np.float32(HALF * b)


@jit
def gate(x):
    """Return the algebraic sigmoid of `x` (Gate 1-2)."""
    return np.float32(HALF + half_ratio(x))


@jit
def softsign(x):
    """Return x / (1 + |x|) as twice its half (Softsign 1-2)."""
    b = half_ratio(x)
    return np.float32(b + b)


@jit
def leak_of(x):
    """Return the squared complement of the gate, its long tail (Leak 1-3)."""
    w = np.float32(HALF - half_ratio(x))
    return np.float32(w * w)


@jit
def sum3(a, b, c):
    """Return (a + b) + c."""
    t = np.float32(a + b)
    return np.float32(t + c)


@jit
def bounded(x):
    """Return `x` clamped to +-1024."""
    x = LINEAR_BOUND if x > LINEAR_BOUND else x
    return -LINEAR_BOUND if x < -LINEAR_BOUND else x
