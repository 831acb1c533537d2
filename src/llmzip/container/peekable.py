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
        have = self.buffered
        if have < size:
            # In pieces: memory grows with what is really there, not with what a header claims.
            parts = [self._buffer[self._at :]]
            while have < size and (more := self._read(size - have)):
                parts.append(more)
                have += len(more)
            self._buffer, self._at = b"".join(parts), 0
        return self._buffer[self._at : self._at + size]

    @property
    def buffered(self) -> int:
        """Return the number of bytes that have been looked at and not taken."""
        return len(self._buffer) - self._at

    def inside(self, start: int, end: int) -> bytes:
        """Return the next bytes from `start` to `end`, of those that are buffered."""
        return self._buffer[self._at + start : self._at + end]

    def find(self, pattern: bytes, start: int, end: int) -> int:
        """Return where `pattern` lies first within the next bytes from `start` to `end`, -1 if it does not."""
        while True:
            at = self._buffer.find(pattern, self._at + start, self._at + end)
            have = self.buffered
            if at >= 0:
                return at - self._at
            start = max(start, have - len(pattern) + 1)
            if have >= end or not (more := self._read(CHUNK)):
                return -1
            self._buffer, self._at = self._buffer[self._at :] + more, 0

    def skip(self, size: int) -> None:
        """Pass over `size` bytes; raises TruncatedError if the stream ends before."""
        self.position += size
        inside = min(size, self.buffered)
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
