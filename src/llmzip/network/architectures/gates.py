"""What the cells of lstm and gru have in common, one rounding per line."""

from __future__ import annotations

import numpy as np

from llmzip.jit import inlined, jit
from llmzip.network.kernels import half_ratio, linear


@jit
def softsign(x):
    """Return x / (1 + |x|) as twice its half (Softsign 1-2)."""
    b = half_ratio(x)
    return np.float32(b + b)


@jit
def sum3(a, b, c):
    """Return (a + b) + c."""
    t = np.float32(a + b)
    return np.float32(t + c)


@inlined
def output(products, b, j):
    """Return output `j` of row `b` in float32, clamped."""
    return linear(products.acc[b, j], products.row_scales[b], products.scales[j])


@inlined
def preactivation(inward, back, bias, b, j):
    """Return what gate or candidate `j` of lane `b` is a function of: products of input and state, and a bias."""
    return sum3(output(inward, b, j), output(back, b, j), bias[j])
