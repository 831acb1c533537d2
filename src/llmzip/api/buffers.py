"""Buffers that callers give: bytes, arrays, memory maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def byte_view(data: ReadableBuffer) -> memoryview:
    """Return the bytes of a C-contiguous buffer without copying them; raises TypeError for anything else."""
    view = memoryview(data)
    # A view cannot be cast if a dimension of it is zero.
    return view.cast("B") if view.nbytes else memoryview(b"")


class Unpicklable:
    """The base of objects with a state that cannot be copied: copy and pickle raise TypeError, as for those of bz2."""

    def __reduce__(self) -> str:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")
