"""The network's element-wise work on the CPU, every float32 operation rounded once (see network/kernels.py).

A comment names the lines of docs/FORMAT.md's *Llama* that a kernel follows.
"""

from __future__ import annotations

import math

import numpy as np

from llmzip.jit import inlined, jit
from llmzip.network.kernels import ONE, PEAK, SMALLEST, ZERO, clamped, quantise_by, quantise_row, rounded, row_peak
from llmzip.network.llama.turn import turn

QUERY_PEAK = np.float32(2047.0)
BOUND = np.float32(2.0**20)  # of a product's output, scores included
RESIDUAL_BOUND = np.float32(2.0**22)
SCORE_BITS = 12  # a score counts 2^-12 of a power of two
SCORE_UNIT = np.float32(2.0**-SCORE_BITS)
DEEPEST = 31  # powers of two below the largest at which a weight or frequency ends
WEIGHT_ONE = np.float32(2.0**20)
SIGMOID_ONE = np.float32(2.0**24)
SIGMOID_ONE_INT = 1 << 24
FREQUENCY_ONE = np.float32(2.0**26)
LOG2E = np.float32(1.44269504)
UNITS_OF_NATS = np.float32(LOG2E * np.float32(1 << SCORE_BITS))

# 2^-f for f in [0, 1), highest power first; the largest relative error is 2.6e-7.
C5, C4, C3 = np.float32(-0.00094755366), np.float32(0.009210875), np.float32(-0.055299606)
C2, C1, C0 = np.float32(0.2401795), np.float32(-0.6931432), np.float32(0.99999994)


@inlined
def exp2_below(fraction):
    """Return 2^-`fraction`, for 0 <= `fraction` < 1 (Exp2 1-10)."""
    p = np.float32(C5 * fraction)
    p = np.float32(p + C4)
    p = np.float32(p * fraction)
    p = np.float32(p + C3)
    p = np.float32(p * fraction)
    p = np.float32(p + C2)
    p = np.float32(p * fraction)
    p = np.float32(p + C1)
    p = np.float32(p * fraction)
    return np.float32(p + C0)


@inlined
def power_below(below, one):
    """Return `one` * 2^-(`below` / 4096), cut to int32; `below` int32 is not negative (Power 1-5)."""
    n = np.int32(below >> SCORE_BITS)
    n = np.int32(DEEPEST) if n > DEEPEST else n
    f = np.float32(np.float32(below & np.int32(4095)) * SCORE_UNIT)
    return np.int32(np.float32(exp2_below(f) * one)) >> n


@inlined
def output(acc, s, scale):
    """Return a product's output, clamped (Linear 2-5)."""
    y = np.float32(np.float32(acc) * s)
    return clamped(np.float32(y * scale), BOUND)


def score_scale(head_width: int) -> np.float32:
    """Return what turns the product of a query and a key into a score."""
    return np.float32(UNITS_OF_NATS / np.float32(math.sqrt(head_width)))


@jit
def norm_peak(width):
    """Return the peak of rows that a norm squares: `width` squares fit in int32."""
    peak = np.int64(2047)
    while peak * peak * width > 2147483647:
        peak -= 1
    return np.float32(peak)


@inlined
def inverse_norm(x, m, inverse_width, epsilon, peak):
    """Return 1 / sqrt(mean of squares + epsilon) of a row, whose peak `m` is (Norm 2-12)."""
    r = np.float32(peak / m)
    total = np.int32(0)
    for i in range(x.shape[0]):
        k = rounded(np.float32(x[i] * r))
        total += np.int32(k * k)
    a = np.float32(np.float32(total) * inverse_width)
    a = np.float32(a / r)
    a = np.float32(a / r)
    a = np.float32(a + epsilon)
    a = np.float32(np.sqrt(a))
    if a < SMALLEST:
        a = SMALLEST
    return np.float32(ONE / a)


@jit
def norm_rows(rows, x, inverse_width, epsilon, peak, q, s):
    """Quantise rows of `x`, normalised, for a product (Norm 1-14)."""
    for row in range(rows):
        m = row_peak(x[row])
        c = inverse_norm(x[row], m, inverse_width, epsilon, peak)
        s[row] = np.float32(quantise_by(PEAK, x[row], m, q[row]) * c)


@jit
def head_rows(rows, x, gain, size, inverse_width, epsilon, peak, q, s, scratch):
    """Normalise rows, multiply their channels, turned back, by `gain`, and quantise them (Step 7-10)."""
    for row in range(rows):
        c = inverse_norm(x[row], row_peak(x[row]), inverse_width, epsilon, peak)
        for i in range(x.shape[1]):
            scratch[i] = np.float32(x[row, i] * c)
        turn(scratch, size)
        for i in range(x.shape[1]):
            scratch[i] = np.float32(scratch[i] * gain[i])
        turn(scratch, size)
        s[row] = quantise_row(scratch, q[row])


@jit
def mixed_rows(rows, mixed, q, s):
    """Quantise rows of what attention gives (Quantise 1-6)."""
    for row in range(rows):
        s[row] = quantise_row(mixed[row], q[row])


@jit
def add_residual(rows, x, acc, s, scales):
    """Add a product's output to the residual rows `x` (Linear 2-5, Residual)."""
    for row in range(rows):
        for i in range(x.shape[1]):
            x[row, i] = clamped(np.float32(x[row, i] + output(acc[row, i], s[row], scales[i])), RESIDUAL_BOUND)


@jit
def gate_rows(rows, acc, size, s, scales, q, scratch):
    """Quantise silu(gate) * up, turned, of rows of `acc` ``[R, 2 hidden]`` (Gate 1-11), `s` updated."""
    hidden = q.shape[1]
    for row in range(rows):
        scale = s[row]
        for i in range(hidden):
            g = output(acc[row, i], scale, scales[i])
            u = output(acc[row, hidden + i], scale, scales[hidden + i])
            t = np.float32(np.float32(np.abs(g)) * LOG2E)
            t = np.float32(30.0) if t > np.float32(30.0) else t
            n = np.int32(t)
            f = np.float32(t - np.float32(n))
            e = np.int32(np.float32(exp2_below(f) * SIGMOID_ONE)) >> n
            above = SIGMOID_ONE if g >= ZERO else np.float32(e)
            y = np.float32(above / np.float32(SIGMOID_ONE_INT + e))
            y = np.float32(g * y)
            scratch[i] = np.float32(y * u)
        turn(scratch, size)
        s[row] = quantise_row(scratch, q[row])


@jit
def frequencies(acc, s, scales, absent):
    """Turn a row of products int32 ``[V]`` with the head into frequencies, in place (Frequency 1-8).

    A logit is made twice: once for the largest, once for the frequencies below it.
    """
    vocab = len(scales)
    peak = np.int32(-(1 << 30))
    for i in range(vocab):
        logit = rounded(output(acc[i], s, scales[i]))
        acc[i] = logit
        peak = logit if logit > peak else peak
    for i in range(vocab):
        value = power_below(np.int32(peak - acc[i]), FREQUENCY_ONE)
        acc[i] = value if value > 1 else np.int32(1)
    for token in absent:
        acc[token] = 1
