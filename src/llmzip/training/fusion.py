"""Elementwise operations fused by ``torch.compile``: each group of them passes over the memory once.

They take more than half of a step on a CPU if each runs on its own. Validation does not fuse: its shapes differ from
text to text, and each would be compiled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch

from llmzip.errors import HardwareError

_fusing = False


class fusible:  # noqa: N801 - a decorator
    """Run a function of tensors as it is written, or compiled while :func:`fusing`."""

    def __init__(self, function: Callable[..., Any]):
        self.__doc__, self._plain = function.__doc__, function

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        return torch.compile(self._plain, dynamic=False)

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """Return what the function returns."""
        return (self._compiled if _fusing else self._plain)(*tensors)


@contextmanager
def fusing(on: bool) -> Iterator[None]:
    """Compile fusible functions inside the context, if `on`."""
    global _fusing
    before, _fusing = _fusing, on
    try:
        yield
    finally:
        _fusing = before


def require_compiler(device: torch.device) -> None:
    """Compile something small for a device; raises HardwareError if that does not work."""
    new = time.time()  # a constant that is in no cache
    trial = torch.compile(lambda x: x.abs() + new, dynamic=False)
    try:
        trial(torch.ones(64, device=device))
    except Exception as error:  # torch has many kinds
        raise HardwareError(
            "torch.compile does not work here: is there a C++ compiler? (leave out --compile)"
        ) from error
