"""Lanes: the cut loses and reorders nothing, whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.coding.lanes import (
    LANES_FROM_TOKENS,
    LANES_OF_PUBLISHED_FROM_BYTES,
    MAX_LANES,
    cut,
    inputs_of,
    lanes_for,
    lanes_of_published,
)

TOKENS = st.integers(1, 400)
LANES = st.integers(1, MAX_LANES)


@given(TOKENS, LANES)
def test_lanes_one_after_the_other_are_the_text(count: int, lanes: int) -> None:
    tokens = np.arange(count, dtype=np.int32)
    grid = cut(tokens, lanes)
    assert grid.dtype == np.int32
    assert grid.flags.c_contiguous
    assert np.array_equal(grid.T[grid.T >= 0], tokens)


@given(TOKENS, LANES)
def test_lanes_differ_by_at_most_one_token_and_the_longer_come_first(count: int, lanes: int) -> None:
    grid = cut(np.zeros(count, np.int32), lanes)
    lengths = (grid >= 0).sum(0)
    assert len(grid) == lengths.max()
    assert lengths.max() - lengths.min() <= 1
    assert (np.diff(lengths) <= 0).all()
    # What fills a shorter lane is its last step, never one in the middle.
    assert (grid[:-1] >= 0).all()


@given(TOKENS, LANES)
def test_inputs_are_begin_and_the_tokens_one_step_late(count: int, lanes: int) -> None:
    grid = cut(np.arange(count, dtype=np.int32), lanes)
    inputs = inputs_of(grid, bos=1000)
    assert inputs.shape == grid.shape
    assert (inputs[0] == 1000).all()
    for step in range(1, len(grid)):
        assert np.array_equal(inputs[step], grid[step - 1])
    assert inputs.min() >= 0
    stretches = [inputs_of(grid, 1000, at, 3) for at in range(0, len(grid), 3)]
    assert np.array_equal(np.concatenate(stretches), inputs)


def test_inputs_hold_a_real_token_after_a_finished_lane() -> None:
    # The network's row is thrown away, but the embedding must be looked up inside its table.
    grid = np.array([[5], [-1], [-1]], np.int32)
    assert inputs_of(grid, bos=9).ravel().tolist() == [9, 5, 0]
    assert inputs_of(grid, 9, at=2, steps=1).tolist() == [[0]]


@pytest.mark.parametrize(("least", "lanes"), LANES_FROM_TOKENS)
def test_number_of_lanes_changes_at_its_threshold(least: int, lanes: int) -> None:
    assert lanes_for(least) == lanes
    if least:
        assert lanes_for(least - 1) == lanes // 2


def test_numbers_of_lanes_are_powers_of_two_within_the_format() -> None:
    for _, lanes in LANES_FROM_TOKENS:
        assert lanes.bit_count() == 1
        assert lanes <= MAX_LANES


@pytest.mark.parametrize(("least", "lanes"), LANES_OF_PUBLISHED_FROM_BYTES)
def test_published_models_get_lanes_by_bytes(least: int, lanes: int) -> None:
    assert lanes_of_published(least) == lanes
    if least:
        assert lanes_of_published(least - 1) < lanes
