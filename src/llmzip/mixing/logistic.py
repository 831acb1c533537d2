"""The logistic domain: stretch and squash, and adaptive probability maps (APM)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmzip.exp2 import exp2_table
from llmzip.jit import inlined

STRETCHED_BIT = 256  # of a stretched probability stand for one bit
LIMIT = 4095  # the largest stretched probability
STRETCH_BITS = 12  # of the probabilities that the small stretch table knows
APM_STEP_BITS = 9  # an APM has entries 2^9 stretched units apart
APM_RATE_SHIFT = 6  # an entry moves by up to 2^-6 of its error
FINE_BITS = 22  # of the probabilities in APMs


def squash_table() -> npt.NDArray[np.int32]:
    """Return int32[2 * LIMIT + 1]: 2^16 / (1 + 2^(-x / 256)) for x = -LIMIT .. LIMIT, in 1 .. 65535.

    In integers, for x >= 0, with e = 2^24 * 2^(-x / 256) from the table of frequencies: 2^41 divided
    by 2^24 + e, halved and rounded; and 2^16 less that for -x.
    """
    x = np.arange(LIMIT + 1)
    e = exp2_table().astype(np.int64)[(x << 4) & 4095] >> (x >> 8)
    upper = np.minimum((((1 << 41) // ((1 << 24) + e)) + 1) >> 1, 65535)
    return np.concatenate([65536 - upper[:0:-1], upper]).astype(np.int32)


def stretch_table(squash: npt.NDArray[np.int32]) -> npt.NDArray[np.int16]:
    """Return int16[65536], the inverse: the smallest x with squash(x) >= p, at most LIMIT."""
    x = np.searchsorted(squash, np.arange(1 << 16)) - LIMIT
    return np.minimum(x, LIMIT).astype(np.int16)


@inlined
def apm_refine(apm, row, x):
    """Return the FINE_BITS probability of row `row` at the stretched `x`."""
    entry, part = (x + LIMIT + 1) >> APM_STEP_BITS, (x + LIMIT + 1) & ((1 << APM_STEP_BITS) - 1)
    low, high = np.int64(apm[row, entry]), np.int64(apm[row, entry + 1])
    return low + (((high - low) * part) >> APM_STEP_BITS)


@inlined
def apm_update(apm, row, x, bit):
    """Move the entries on both sides of the stretched `x` towards `bit`."""
    entry, part = (x + LIMIT + 1) >> APM_STEP_BITS, (x + LIMIT + 1) & ((1 << APM_STEP_BITS) - 1)
    target = (bit << FINE_BITS) - bit
    low, high = np.int64(apm[row, entry]), np.int64(apm[row, entry + 1])
    apm[row, entry] = low + (((target - low) * ((1 << APM_STEP_BITS) - part)) >> (APM_STEP_BITS + APM_RATE_SHIFT))
    apm[row, entry + 1] = high + (((target - high) * part) >> (APM_STEP_BITS + APM_RATE_SHIFT))
