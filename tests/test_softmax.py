import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip import exp2
from llmzip.network import softmax


def sums_of(acc, scale, scales):
    sums = np.empty(len(acc) + 1, np.int64)
    softmax.running_sums(
        np.array(acc, np.int32), np.float32(scale), np.array(scales, np.float32), exp2.exp2_table(), sums
    )
    return sums


def test_exp2_table_is_correctly_rounded():
    table = exp2.exp2_table()
    assert table[0] == 1 << 24
    # (2^24 * 2^(-k/4096))^4096 = 2^(24 * 4096 - k), compared as integers.
    for k in (1, 2, 777, 2048, 4095):
        n = 2 * int(table[k])
        assert (n - 1) ** 4096 < 1 << (25 * 4096 - k) < (n + 1) ** 4096


@given(st.lists(st.integers(-(2**23), 2**23), min_size=1, max_size=40))
def test_frequencies_are_powers_of_two_of_logit_differences(acc):
    sums = sums_of(acc, 1.0, [0.01] * len(acc))
    logits = [round(float(np.float32(np.float32(a) * np.float32(0.01)))) for a in acc]
    for frequency, logit in zip(np.diff(sums), logits, strict=True):
        exact = 2.0**24 * 2.0 ** ((logit - max(logits)) / 4096)
        assert frequency == pytest.approx(max(exact, 1), abs=1.01)


def test_no_choice_is_impossible():
    assert np.diff(sums_of([-(2**30), 0, 2**30], 1000.0, [1e6] * 3)).min() == 1


@given(st.integers(0, 2**41), st.integers(0, 2**41), st.integers(1, 2**41))
def test_probability_is_the_share_in_16_bits(low, left, right):
    share = Fraction(right, left + right)
    p1 = softmax.probability(low, low + left, low + left + right)
    assert p1 == min(max(math.floor(share * 65536), 1), 65535)


def test_multiply_is_exact_in_the_worst_case():
    weights = np.full((5, 2048), -63, np.int8)
    acc = np.empty(3, np.int32)
    softmax.multiply(weights, 2, np.full(2048, 127, np.int16), acc)
    assert acc.tolist() == [-63 * 127 * 2048] * 3
