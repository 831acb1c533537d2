import numpy as np
import pytest

from llmzip.jit import unowned
from llmzip.mixing.simd import PRODUCT_SHIFT, RATE_SHIFT, WIDTH, adjust, dot

MOST = (8 << 16) - 1


def operands(seed, columns):
    rng = np.random.default_rng(seed)
    if seed == 0:  # the extremes
        return np.full((3, columns), MOST, np.int32), np.full(columns, 4095, np.int32)
    if seed == 1:
        return np.full((3, columns), -MOST, np.int32), np.full(columns, 4095, np.int32)
    weights = rng.integers(-MOST, MOST + 1, (3, columns)).astype(np.int32)
    return weights, rng.integers(-4095, 4096, columns).astype(np.int32)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("columns", [WIDTH, 2 * WIDTH, 3 * WIDTH])
def test_dot_is_the_sum_of_shifted_products(seed, columns):
    weights, inputs = operands(seed, columns)
    for row in range(3):
        expected = sum((int(w) * int(x)) >> PRODUCT_SHIFT for w, x in zip(weights[row], inputs, strict=True))
        assert dot(weights, row, inputs, columns) == expected
    half = sum((int(w) * int(x)) >> PRODUCT_SHIFT for w, x in zip(weights[2][:WIDTH], inputs[:WIDTH], strict=True))
    assert dot(weights, 2, inputs, WIDTH) == half


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("error", [98301, -98301, 1, -1, 12345])
def test_adjust_rounds_and_keeps_within_its_bound(seed, error):
    weights, inputs = operands(seed, 3 * WIDTH)
    before = weights.copy()
    adjust(weights, 1, inputs, 2 * WIDTH, error, MOST)
    for i in range(3 * WIDTH):
        change = (int(inputs[i]) * error + (1 << (RATE_SHIFT - 1))) >> RATE_SHIFT if i < 2 * WIDTH else 0
        assert weights[1, i] == min(max(int(before[1, i]) + change, -MOST), MOST)
    assert np.array_equal(weights[[0, 2]], before[[0, 2]])


def test_an_unowned_array_is_the_same_memory():
    array = np.arange(5, dtype=np.int32)
    unowned(array)[3] = 77
    assert array[3] == 77
