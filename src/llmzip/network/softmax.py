"""From a softmax level's integer products to 16-bit probabilities of decisions, in exact steps.

A *logit* is an int32 in units of 2^-12 of a factor of two. It is made from the product of integer rows
by one conversion, two multiplications and one rounding in float32, the same on every machine. Frequencies are
integers, the likeliest choice's is 2^24 and no choice's is 0; their running sums give the
probability of any range of choices as a quotient of integers.
"""

from __future__ import annotations

import numpy as np

from llmzip.exp2 import LOGIT_BITS
from llmzip.jit import inlined
from llmzip.network.kernels import clamped, rounded

LOGIT_BOUND = np.float32(2.0**20)
DEEPEST_SHIFT = 31


@inlined
def running_sums(acc, scale, scales, exp2, sums):
    """Turn one row of products into running sums of frequencies.

    Args:
        acc: int32[n] products; overwritten.
        scale: float32, the scale of the hidden row.
        scales: float32[n], the scales of the weights.
        exp2: from :func:`exp2_table`.
        sums: int64[n + 1] or longer, written: sums[i] is the total of the choices before i.
    """
    choices = len(acc)
    peak = np.int32(-(1 << 30))
    for i in range(choices):
        x = np.float32(np.float32(acc[i]) * scale)
        logit = rounded(clamped(np.float32(x * scales[i]), LOGIT_BOUND))
        acc[i] = logit
        peak = logit if logit > peak else peak
    # Two loops, because this one can be vectorised and the sum cannot.
    for i in range(choices):
        below = np.int32(peak - acc[i])
        shift = np.int32(below >> LOGIT_BITS)
        shift = np.int32(DEEPEST_SHIFT) if shift > DEEPEST_SHIFT else shift
        frequency = np.int32(exp2[below & 4095] >> shift)
        acc[i] = frequency if frequency > 1 else np.int32(1)
    total = 0
    sums[0] = 0
    for i in range(choices):
        total += np.int64(acc[i])
        sums[i + 1] = total


@inlined
def multiply(weights, first, q, acc):
    """Write the products of `weights` int8 ``[V, d]`` rows from `first` on with the row `q` ``[d]``.

    `acc` int32[n] has an element for each row. Rows of 8 bits and of 12 fit: |acc| < 2^28 for d <= 2048.
    """
    width = len(q)
    for i in range(len(acc)):
        row = weights[first + i]
        total = np.int32(0)
        for k in range(width):
            total += np.int32(row[k]) * np.int32(q[k])
        acc[i] = total


@inlined
def probability(low, middle, high):
    """Return the 16-bit probability of bit 1 from the sums at a node's lo, mid and hi."""
    p1 = ((high - middle) << 16) // (high - low)
    p1 = 65535 if p1 > 65535 else p1
    return 1 if p1 < 1 else p1
