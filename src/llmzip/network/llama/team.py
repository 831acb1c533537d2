"""A team of threads that run one forward pass together: each does its share of every stage, then they meet.

A decoder has few rows at a time, for which all weights are read from memory: threads that run the network over lanes
of their own would each read all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from llmzip.jit import inlined, jit
from llmzip.kernel_cache import config
from llmzip.threads import Worker

ARRIVED, MEETINGS, GIVEN_UP = range(3)  # entries of the state that a team shares, each in a cache line of its own
LINE = 8  # int64 in a cache line
PATIENCE = 4096  # looks at the others before the processor is offered to them

_I32, _I64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def _atomic_add(typing_context: Any, address: Any, value: Any) -> Any:  # noqa: ARG001 - numba counts them
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "seq_cst")

    return types.int64(types.intp, types.int64), generate


@intrinsic
def _yield(typing_context: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        if os.name == "posix":
            name = "sched_yield"
            kind = ir.FunctionType(_I32, [])
            function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), generate


@jit
def _meet(address, size):
    meetings, given_up = address + 8 * LINE * MEETINGS, address + 8 * LINE * GIVEN_UP
    now = _atomic_add(meetings, 0)
    if _atomic_add(address, 1) == size - 1:
        _atomic_add(address, -size)
        _atomic_add(meetings, 1)
        return
    looks = 0
    while _atomic_add(meetings, 0) == now and _atomic_add(given_up, 0) == 0:
        looks += 1
        if looks > PATIENCE:
            _yield()


if config.DISABLE_JIT:

    def meet(team: Any) -> None:
        """Return at once: without the compiler, a team has one member."""

else:

    @inlined
    def meet(team):
        """Wait until all members have come here; `team` = (rank, size, state)."""
        if team[1] > 1:
            _meet(team[2].ctypes.data, team[1])


@inlined
def share(count, team):
    """Return the first of `count` items that are this member's, and the one after its last."""
    rank, size = team[0], team[1]
    return count * rank // size, count * (rank + 1) // size


class Team:
    """Threads that make calls together, the calling one being among them.

    Attributes:
        size: the number of members: fewer than asked for where no more threads can be started.
    """

    def __init__(self, size: int):
        self._stack, self._workers = ExitStack(), []
        if not config.DISABLE_JIT:
            started = [self._stack.enter_context(Worker()) for _ in range(size - 1)]
            self._workers = [worker for worker in started if worker.started]
        self.size = 1 + len(self._workers)
        self._state: npt.NDArray[np.int64] = np.zeros(3 * LINE, np.int64)

    def run(self, call: Callable[[tuple[int, int, npt.NDArray[np.int64]]], None]) -> None:
        """Let every member make a call with (rank, size, state); raises what one of them raised."""
        futures = [worker.submit(partial(self._part, call, rank)) for rank, worker in enumerate(self._workers, 1)]
        try:
            self._part(call, 0)
        finally:
            for future in futures:
                future.result()

    def _part(self, call: Callable[[tuple[int, int, npt.NDArray[np.int64]]], None], rank: int) -> None:
        try:
            call((rank, self.size, self._state))
        except BaseException:
            self._state[LINE * GIVEN_UP] = 1  # or the others would wait for ever
            raise

    def close(self) -> None:
        """End the threads."""
        self._stack.close()
