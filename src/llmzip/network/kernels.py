"""The network's element-wise work on the CPU, fused into few passes.

Each kernel is one stage between two matrix products of the pseudo-code in ``docs/FORMAT.md``; a comment names
its lines. Every float32 operation is rounded once: literals and intermediates are wrapped in ``np.float32``,
because numba would compute in float64, and nothing may be fused, reordered or replaced. Rows never look at
other rows of a batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.jit import float_of_bits, inlined, jit

SMALLEST = np.float32(2.0**-40)  # a row's absmax is at least this, so an all-zero row needs no special case
NORM_PEAK = np.float32(1023.0)  # the norm is taken from rows of 10 bits and a sign: 2048 squares fit in int32
PEAK = np.float32(127.0)
# The row that the head reads has 4 bits more. Matmul backends multiply 8 bits, so it is cut into two rows.
FINE_BITS = 4
FINE = 1 << FINE_BITS
FINE_PEAK = np.float32(127.0 * FINE)
LINEAR_BOUND = np.float32(1024.0)
RESIDUAL_BOUND = np.float32(65536.0)
# Adding and subtracting 1.5 * 2^23 rounds |v| <= 2^22 half to even, and vectorises where a call of rint does
# not.
ROUNDER = np.float32(12582912.0)
ONE = np.float32(1.0)
HALF = np.float32(0.5)
ZERO = np.float32(0.0)


# 2^-126 and 1/2, whose product is a denormal; 2^-140, which is one, and 2^100
DENORMAL_PROBE = np.array([0x00800000, 0x3F000000, 0x00000200, 0x71800000], np.int32).view(np.float32)


@jit
def denormals_flushed(probe):
    """Return whether this thread treats denormals as zero; `probe`: DENORMAL_PROBE, unknown to the compiler."""
    made = np.float32(probe[0] * probe[1])
    read = np.float32(probe[2] * probe[3])
    return made == ZERO or read == ZERO


class Products(NamedTuple):
    """The products of a matrix with rows: `acc` int32 ``[B, n]``, the rows' scales ``[B]``, the weights' ``[n]``."""

    acc: npt.NDArray[np.int32]
    row_scales: npt.NDArray[np.float32]
    scales: npt.NDArray[np.float32]


@inlined
def absmax(row):
    """Return max |row|: on the bit patterns, where the maximum is an integer one and vectorises."""
    bits = row.view(np.int32)
    top = np.int32(0)
    for i in range(bits.shape[0]):
        magnitude = bits[i] & np.int32(0x7FFFFFFF)
        top = magnitude if magnitude > top else top
    return float_of_bits(top)


@inlined
def rounded(x):
    """Return the integer nearest to |x| <= 2^22, ties to even."""
    v = np.float32(x + ROUNDER)
    return np.int32(np.float32(v - ROUNDER))


@inlined
def clamped(x, bound):
    """Return `x` limited to [-bound, bound]."""
    x = bound if x > bound else x
    return -bound if x < -bound else x


@inlined
def row_peak(u):
    """Return max |u|, at least SMALLEST (Quantise 1-2)."""
    m = absmax(u)
    return SMALLEST if m < SMALLEST else m


@inlined
def quantise_by(peak, u, m, q):
    """Write int16 `q` in [-peak, peak] for a row whose peak `m` is and return its scale (Quantise 3-6)."""
    r = np.float32(peak / m)
    for i in range(u.shape[0]):
        q[i] = np.int16(rounded(np.float32(u[i] * r)))
    return np.float32(m * np.float32(ONE / peak))


@inlined
def quantise_to(peak, u, q):
    """Write int16 `q` in [-peak, peak] for the float32 row `u` and return its scale (Quantise 1-6)."""
    return quantise_by(peak, u, row_peak(u), q)


@inlined
def quantise_row(u, q):
    """Write int16 `q` in [-127, 127], as every product but the head's reads it, and return its scale."""
    return quantise_to(PEAK, u, q)


@jit
def normalise_row(x, inverse_width, n):
    """Write `n` = `x` divided by its root mean square (Normalise 1-11)."""
    r = np.float32(NORM_PEAK / row_peak(x))
    total = np.int32(0)
    for i in range(x.shape[0]):
        k = rounded(np.float32(x[i] * r))
        total += np.int32(k * k)
    if total < 1:
        total = np.int32(1)
    a = np.float32(np.float32(total) * inverse_width)
    a = np.float32(np.sqrt(a))
    c = np.float32(r / a)
    for i in range(x.shape[0]):
        n[i] = np.float32(x[i] * c)


@jit
def shift_row(n, shift, last, u):
    """Write `u` = `n` + `shift` * `last` and let `n` be the next `last` (Shift 1-3)."""
    for i in range(n.shape[0]):
        t = np.float32(shift[i] * last[i])
        u[i] = np.float32(n[i] + t)
        last[i] = n[i]


@jit
def embed(ids, table, scales, x):
    """Write `x` ``[R, d]``: the embedding rows of `ids` ``[R]`` (Step 1)."""
    for row in range(ids.shape[0]):
        token = ids[row]
        scale = scales[token]
        for i in range(x.shape[1]):
            x[row, i] = np.float32(np.float32(table[token, i]) * scale)


@jit
def add_residual(x, acc, s, scales):
    """Add a linear layer's output to the residual rows `x` (Linear 2-4, Residual 1-2)."""
    d = x.shape[1]
    for row in range(x.shape[0]):
        for i in range(d):
            y = np.float32(np.float32(acc[row, i]) * s[row])
            y = np.float32(y * scales[i])
            x[row, i] = clamped(np.float32(x[row, i] + y), RESIDUAL_BOUND)


@jit
def shifted_input(x, inverse_width, shift, last, q, s, scratch):
    """Normalise, shift and quantise the rows of `x` for a mixer's first product.

    `x` ``[T * B, d]`` is in time order; `last` ``[B, d]`` is each lane's previous normalised row, updated;
    `scratch` float32 ``[2, d]``.
    """
    lanes = last.shape[0]
    n, u = scratch[0], scratch[1]
    for row in range(x.shape[0]):
        normalise_row(x[row], inverse_width, n)
        shift_row(n, shift, last[row % lanes], u)
        s[row] = quantise_row(u, q[row])


@jit
def normalised_input(x, inverse_width, q, s, scratch):
    """Normalise and quantise the rows of `x` for a mixer's first product, where nothing is shifted."""
    for row in range(x.shape[0]):
        normalise_row(x[row], inverse_width, scratch[0])
        s[row] = quantise_row(scratch[0], q[row])


@jit
def final_rows(x, inverse_width, q, s, high, low, scratch):
    """Normalise the rows of `x` and quantise them for the head (Step 9), to `q` = FINE `high` + `low`.

    Each of the two is within [-127, 127], which is what backends multiply.
    """
    for row in range(x.shape[0]):
        normalise_row(x[row], inverse_width, scratch[0])
        s[row] = quantise_to(FINE_PEAK, scratch[0], q[row])
        for i in range(x.shape[1]):
            high[row, i] = (q[row, i] + FINE // 2) >> FINE_BITS
            low[row, i] = q[row, i] - FINE * high[row, i]


@jit
def join(high, low):
    """Turn the products `high` int32 of a fine row's high part into those of the whole row."""
    for row in range(high.shape[0]):
        for j in range(high.shape[1]):
            high[row, j] = np.int32(FINE) * high[row, j] + low[row, j]


@jit
def linear(acc, s, scale):
    """Return a product's output in float32, clamped (Linear 2-4, and the clamp of Recur and Square)."""
    y = np.float32(np.float32(acc) * s)
    return clamped(np.float32(y * scale), LINEAR_BOUND)


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
def leak_of(x):
    """Return the squared complement of the gate, its long tail (Leak 1-3)."""
    w = np.float32(HALF - half_ratio(x))
    return np.float32(w * w)


@jit
def recur(acc, s, scales, forget_bias, h, q, s_out, scratch):
    """Run the gated recurrence over `acc` int32 ``[T * B, 3d]`` and quantise its gated output (Recur 1-12).

    `h` float32 ``[B, d]`` is the state, updated; rows are in time order; `scratch` float32 ``[2, d]``.
    """
    lanes, d = h.shape
    out = scratch[0]
    for row in range(q.shape[0]):
        state = h[row % lanes]
        scale = s[row]
        for i in range(d):
            z = linear(acc[row, i], scale, scales[i])
            f = linear(acc[row, d + i], scale, scales[d + i])
            g = linear(acc[row, 2 * d + i], scale, scales[2 * d + i])
            leak = leak_of(np.float32(f + forget_bias[i]))
            k = np.float32(ONE - leak)
            kept = np.float32(k * state[i])
            new = np.float32(leak * z)
            v = np.float32(kept + new)
            state[i] = v
            c = np.float32(g * gate(g))
            out[i] = np.float32(v * c)
        s_out[row] = quantise_row(out, q[row])


@jit
def square(acc, s, scales, q, s_out, scratch):
    """Quantise a product's squared positive part (Square 1-2); `scratch` float32 ``[hidden]``."""
    for row in range(q.shape[0]):
        for i in range(q.shape[1]):
            y = linear(acc[row, i], s[row], scales[i])
            y = ZERO if y < ZERO else y
            scratch[i] = np.float32(y * y)
        s_out[row] = quantise_row(scratch, q[row])
