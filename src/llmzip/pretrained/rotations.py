"""The cosines and sines of rotary positions, from integers: the same on every machine, which no library promises."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import numpy.typing as npt

BITS = 96  # after the point; errors stay far below the 24 of float32 over thousands of positions
ONE = 1 << BITS


def rotations(base: float, width: int, positions: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the cosines and sines float32 ``[positions, width / 2]`` of position * base^(-2 i / width).

    The first angle of each i comes from its power series, the others by turning on.
    """
    cosines, sines = np.empty((2, positions, width // 2), np.float32)
    for i in range(width // 2):
        c1, s1 = _turn(_frequency(base, 2 * i, width))
        c, s = ONE, 0
        for position in range(positions):
            cosines[position, i], sines[position, i] = c / ONE, s / ONE
            c, s = (c * c1 - s * s1) >> BITS, (s * c1 + c * s1) >> BITS
    return cosines, sines


def _frequency(base: float, numerator: int, denominator: int) -> int:
    """Return base^(-numerator / denominator), BITS after the point: `decimal` rounds correctly."""
    with localcontext() as context:
        context.prec = 60
        power = (-(Decimal(base).ln() * numerator / denominator)).exp()
        return int((power * ONE).to_integral_value())


def _turn(angle: int) -> tuple[int, int]:
    """Return the cosine and sine of an angle within one radian, BITS after the point each."""
    cosine, sine, term, k = 0, 0, ONE, 0
    while term:
        sign = -1 if k & 2 else 1
        if k & 1:
            sine += sign * term
        else:
            cosine += sign * term
        k += 1
        term = (term * angle >> BITS) // k
    return cosine, sine
