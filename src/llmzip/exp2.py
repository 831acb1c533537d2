"""The frozen table of 2^x, from integers alone: the same on every machine."""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt

LOGIT_BITS = 12  # a logit counts 2^-12
PEAK_BITS = 24


def exp2_table() -> npt.NDArray[np.int32]:
    """Return int32[4096]: 2^(24 - k / 4096), rounded, for k = 0 .. 4095.

    In integers: r is 2^128 halved and its geometric mean with 2^128 taken twelve times (floor of
    the square root), so r / 2^128 = 2^(-1 / 4096); powers are multiplied with floor.
    """
    one = 1 << 128
    root = one >> 1
    for _ in range(LOGIT_BITS):
        root = isqrt(root * one)
    table = np.empty(1 << LOGIT_BITS, np.int32)
    power = one
    for k in range(len(table)):
        table[k] = ((power >> (128 - PEAK_BITS - 1)) + 1) >> 1
        power = (power * root) >> 128
    return table
