"""Compress and decompress piece by piece, as the classes of bz2, lzma and compression.zstd do."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from llmzip.api import stream
from llmzip.api.buffers import Unpicklable, byte_view
from llmzip.api.frames import FrameDecoder, FrameEncoder
from llmzip.container.reader import Reader
from llmzip.errors import TruncatedError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Compressor(Unpicklable):
    """Compress data given in pieces into one archive.

    The joined results of all calls of `compress` and of `flush` at the end are the bytes that
    :func:`llmzip.compress_stream` makes of the joined data. Up to a frame, of `frame_size`, is held back.
    """

    def __init__(self, *, model: str | None = None, threads: int = 0, frame_size: int | None = None):
        self._out, self._threads = io.BytesIO(), threads
        self._encoder = FrameEncoder(model=model)
        self._writer = stream.new_writer(self._out, self._encoder)
        self._frame_bytes = stream.frame_bytes(frame_size)
        self._held = bytearray()
        self._flushed = False

    def compress(self, data: ReadableBuffer) -> bytes:
        """Add `data` and return the part of the archive that is ready: often nothing."""
        self._check()
        self._held += byte_view(data)
        # A full frame waits for what follows it: only then is it not the last.
        while len(self._held) > self._frame_bytes:
            content = bytes(self._held[: self._frame_bytes])
            del self._held[: self._frame_bytes]
            self._write(content, last=False)
        return self._take()

    def flush(self) -> bytes:
        """Return the end of the archive; the compressor cannot be used afterwards."""
        self._check()
        self._flushed = True
        self._write(bytes(self._held), last=True)
        self._held.clear()
        return self._take()

    def _write(self, content: bytes, *, last: bool) -> None:
        self._writer.write(content, last=last, **self._encoder.encode(content, self._threads)._asdict())

    def _check(self) -> None:
        if self._flushed:
            raise ValueError("the compressor has been flushed")

    def _take(self) -> bytes:
        done = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return done


class _Pieces:
    """A stream of what has been given so far."""

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    def append(self, data: memoryview) -> None:
        self._data += data

    def read(self, size: int) -> bytes:
        piece = bytes(self._data[:size])
        del self._data[:size]
        return piece


class Decompressor(Unpicklable):
    """Decompress one archive given in pieces.

    Every frame is verified before any of it is returned. Data after the end of the archive is not read: it is
    `unused_data`. Arguments as for :func:`llmzip.decompress_stream`.
    """

    def __init__(self, *, model: str | None = None, threads: int = 0, memlimit: int | None = None):
        self._decoder = FrameDecoder(model=model, threads=threads, memlimit=memlimit)
        self._pieces = _Pieces()
        self._reader = Reader(self._pieces)  # type: ignore[arg-type] # it is only read from
        self._content = memoryview(b"")
        self._starved = True  # the next frame has not been given in full
        self._ended = False
        self._unused = bytearray()

    @property
    def eof(self) -> bool:
        """Return whether the end of the archive has been reached and all its content returned."""
        return self._ended and not self._content

    @property
    def needs_input(self) -> bool:
        """Return whether `decompress` needs more data to return anything."""
        return self._starved and not self._ended and not self._content

    @property
    def unused_data(self) -> bytes:
        """Return what followed the archive; empty until `eof`."""
        return bytes(self._unused) if self.eof else b""

    def decompress(self, data: ReadableBuffer, max_length: int = -1) -> bytes:
        """Add `data` and return the content that is ready, at most `max_length` bytes unless that is negative.

        What was over `max_length` comes with the next calls; give them b"" while `needs_input` is false. Raises
        EOFError after the end, LlmzipError for data that is no undamaged archive.
        """
        if self.eof:
            raise EOFError("the end of the archive has been reached")
        piece = byte_view(data)
        if self._ended:
            self._unused += piece
        else:
            self._pieces.append(piece)
            # Not tried again for every piece: a frame would be copied each time.
            self._starved = self._starved and self._reader.buffered + len(self._pieces) < self._reader.wanted
        parts = []
        missing = max_length if max_length >= 0 else sys.maxsize
        while missing > 0:
            if not self._content and not self._next():
                break
            part = self._content[:missing]
            self._content = self._content[len(part) :]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _next(self) -> bool:
        """Decode the next frame and return whether there was one."""
        if self._starved or self._ended:
            return False
        try:
            frame = self._reader.frame()
        except TruncatedError:
            self._starved = True
            return False
        if frame is None:
            self._ended = True
            self._unused += self._reader.rest()
            return False
        self._content = memoryview(self._decoder.decode(frame))
        return True
