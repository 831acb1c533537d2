"""Read a stream that need not be seekable, with a look ahead."""

from __future__ import annotations

import errno
from typing import BinaryIO

from llmzip.container.format import (
    INCOMPLETE,
)
from llmzip.errors import TruncatedError

CHUNK = 1 << 20


class PeekableStream:
    """A stream, seekable or not, whose next bytes can be looked at before they are taken."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._buffer = b""
        self._at = 0
        self.position = 0  # bytes taken

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes without taking them, fewer only where the stream ends."""
        have = len(self._buffer) - self._at
        if have < size:
            # In pieces: memory grows with what is really there, not with what a header claims.
            parts = [self._buffer[self._at :]]
            while have < size and (more := self._read(size - have)):
                parts.append(more)
                have += len(more)
            self._buffer, self._at = b"".join(parts), 0
        return self._buffer[self._at : self._at + size]

    def skip(self, size: int) -> None:
        """Pass over `size` bytes; raises TruncatedError if the stream ends before."""
        self.position += size
        inside = min(size, len(self._buffer) - self._at)
        self._at += inside
        if self._at == len(self._buffer):
            self._buffer, self._at = b"", 0
        size -= inside
        if size and self._stream.seekable():
            target = self._stream.tell() + size
            if target <= self._stream.seek(0, 2):
                self._stream.seek(target)
                return
        while size and (data := self._read(size)):
            size -= len(data)
        if size:
            raise TruncatedError(INCOMPLETE)

    def take(self, size: int) -> bytes:
        """Take `size` bytes, fewer only where the stream ends."""
        data = self.peek(size)
        self.skip(len(data))
        return data

    def _read(self, size: int) -> bytes:
        """Read some bytes, none only at the end; raises BlockingIOError where a non-blocking stream has none now."""
        data: bytes | None = self._stream.read(min(size, CHUNK))
        if data is None:  # not the end, which is b""
            raise BlockingIOError(errno.EAGAIN, "the input is non-blocking and has no data now")
        return data

    def read(self, size: int) -> bytes:
        """Take `size` bytes; raises TruncatedError if the stream ends before."""
        data = self.peek(size)
        if len(data) < size:  # nothing is taken: there may be more to read later
            raise TruncatedError(INCOMPLETE)
        self.skip(size)
        return data
