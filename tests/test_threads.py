"""Threads: lanes shared out among them, and what happens where none can be started."""

import os
import threading

import pytest
from frames import TEXT
from hypothesis import given
from hypothesis import strategies as st

import llmzip
from llmzip import threads
from llmzip.coding.lanes import MAX_LANES
from llmzip.threads import Worker, groups_of, start_all


@given(st.integers(1, MAX_LANES), st.integers(1, 2 * MAX_LANES))
def test_groups_cover_all_lanes_in_order_and_evenly(lanes: int, workers: int) -> None:
    groups = groups_of(lanes, workers)
    assert [lane for group in groups for lane in range(lanes)[group]] == list(range(lanes))
    sizes = [group.stop - group.start for group in groups]
    assert len(groups) == min(lanes, workers)
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


def test_cores_are_counted_where_nobody_can_ask_which_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    assert threads.usable_cores() >= 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert threads.usable_cores() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.usable_cores() == 1


def only(count: int):
    """Return a start method that fails after `count` threads, as with a limit of processes or at shutdown."""
    real, started = threading.Thread.start, []

    def start(thread):
        if len(started) == count:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    return start


@pytest.mark.parametrize("count", range(4))
def test_all_threads_are_started_or_none(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(threading.Thread, "start", only(count))
    before, ran = threading.active_count(), []
    started = start_all([lambda i=i: ran.append(i) for i in range(3)])
    for thread in started:
        thread.join()
    assert len(started) == (3 if count == 3 else 0)
    assert sorted(ran) == ([0, 1, 2] if count == 3 else [])
    assert threading.active_count() == before


@pytest.mark.parametrize("can_start", [True, False])
def test_a_worker_makes_calls_in_order(monkeypatch: pytest.MonkeyPatch, can_start: bool) -> None:
    if not can_start:
        monkeypatch.setattr(threading.Thread, "start", only(0))
    order: list[int] = []
    with Worker() as worker:
        futures = [worker.submit(lambda i: order.append(i) or i, i) for i in range(20)]
        failing = worker.submit(lambda: 1 // 0)
        assert [future.result() for future in futures] == order == list(range(20))
        with pytest.raises(ZeroDivisionError):
            failing.result()


@pytest.mark.usefixtures("small_frames")
@pytest.mark.parametrize("count", range(4))
def test_without_threads_the_bytes_are_the_same(tiny_name: str, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    content = TEXT * 8  # several lanes
    archive = llmzip.compress(content, model=tiny_name, threads=2)
    monkeypatch.setattr(threading.Thread, "start", only(count))
    assert llmzip.compress(content, model=tiny_name, threads=2) == archive
    assert llmzip.decompress(archive, threads=2) == content
