"""Lanes shared out among threads."""

from hypothesis import given
from hypothesis import strategies as st

from llmzip.coding.lanes import MAX_LANES
from llmzip.coding.threads import groups_of


@given(st.integers(1, MAX_LANES), st.integers(1, 2 * MAX_LANES))
def test_groups_cover_all_lanes_in_order_and_evenly(lanes: int, workers: int) -> None:
    groups = groups_of(lanes, workers)
    assert [lane for group in groups for lane in range(lanes)[group]] == list(range(lanes))
    sizes = [group.stop - group.start for group in groups]
    assert len(groups) == min(lanes, workers)
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
