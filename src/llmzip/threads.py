"""Threads that code a frame: how many, which lanes each of them runs the network over, and what if none can start.

None can when the process may have no more of them, or when the interpreter is shutting down: files that are closed
then, by a function registered with atexit or by a thread that outlives the main one, must lose nothing.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from itertools import cycle
from queue import SimpleQueue
from typing import Any, Self, TypeVar

Result = TypeVar("Result")


def usable_cores() -> int:
    """Return the number of processor cores that this process may run on, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def groups_of(lanes: int, workers: int) -> list[slice]:
    """Split the lanes evenly among at most `workers` threads, in order; no group is empty."""
    count = min(lanes, workers)
    return [slice(i * lanes // count, (i + 1) * lanes // count) for i in range(count)]


def start_all(targets: list[Callable[[], object]]) -> list[threading.Thread]:
    """Start a thread for each of the `targets`; return none, and run nothing, unless all can be started."""
    go, cancelled = threading.Event(), False

    def run(target: Callable[[], object]) -> None:
        go.wait()
        if not cancelled:
            target()

    started: list[threading.Thread] = []
    try:
        for target in targets:
            thread = threading.Thread(target=run, args=(target,))
            thread.start()
            started.append(thread)
    except RuntimeError:
        cancelled = True
    finally:
        # Whatever happens, an interrupt included, no thread may wait for ever.
        cancelled = cancelled or len(started) < len(targets)
        go.set()
    if cancelled:
        for thread in started:
            thread.join()
        return []
    return started


def in_order(calls: Iterable[Callable[[], Result]], count: int) -> Iterator[Result]:
    """Make calls, `count` of them at the same time, and yield their results in order; one at a time needs no thread.

    If there are no more calls because of an error, it is raised after the results of those before.
    """
    if count == 1:
        for call in calls:
            yield call()
        return
    with ExitStack() as stack:
        workers = cycle([stack.enter_context(Worker()) for _ in range(count)])
        running: deque[Future[Result]] = deque()
        waiting, failure = iter(calls), None
        while True:
            try:
                running.append(next(workers).submit(next(waiting)))
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            if len(running) == count:  # the worker of the oldest is the next one
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
        if failure:
            raise failure


class Worker:
    """A thread that makes calls in their order; where it cannot be started, they are made when they are submitted."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._threads = start_all([self._run])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Return the future result of a call."""
        future: Future[Any] = Future()
        if self._threads:
            self._calls.put((future, function, args))
        else:
            _complete(future, function, args)
        return future

    def _run(self) -> None:
        while call := self._calls.get():
            _complete(*call)
            del call  # or the last one's result is kept as long as nothing follows


def _complete(future: Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Make a call for a future."""
    try:
        future.set_result(function(*args))
    except BaseException as error:  # for who asks for the result
        future.set_exception(error)
        del future  # the error's traceback leads here: no cycle may keep what the call worked on
