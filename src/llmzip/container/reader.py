"""Read archives, from files and pipes alike, and check everything before use.

::

    for frame in Reader(stream):            # of all archives in the stream, one after another
        ...                                 # frame.header.kind is how it was coded
        frame.verify(content, model.digest)  # raises ChecksumError

The end of the iteration means that nothing is missing. `scan` yields the same frames without their
payloads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, NoReturn

from llmzip.container.format import (
    INCOMPLETE,
    MAGIC,
    MAX_HEAD,
    START,
    SYNC,
    TRAILER,
    VERSION,
    Frame,
    Trailer,
    parse_frame,
)
from llmzip.container.peekable import CHUNK, PeekableStream
from llmzip.container.small import MOST_SMALL, begins_small
from llmzip.errors import ChecksumError, FormatError, LlmzipError, TruncatedError

# Tapes and disks are written in blocks, the last of which zeros fill up.
BLOCK = 512
MAX_PADDING = (1 << 20) - 1

FOREIGN = {
    b"LZIP": "lzip",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
}


class Reader:
    """Iterate over the frames of all archives in a stream.

    Raises FormatError, TruncatedError or ChecksumError where the stream is not archives one after
    another, complete and with all their frames in order. The content of a frame is for the caller
    to verify. Without `payloads`, frames come without them; a seekable stream is not read there.
    """

    def __init__(self, stream: BinaryIO, *, payloads: bool = True):
        self._source = PeekableStream(stream)
        self._payloads = payloads
        self._previous: Frame | None = None  # in this archive
        self.wanted = 1  # bytes that must be there before it is of use to try again after TruncatedError
        self._trailer = Trailer()

    @property
    def buffered(self) -> int:
        """Return the number of bytes that were read of the stream and belong to nothing that was returned yet."""
        return self._source.buffered

    @property
    def position(self) -> int:
        """Return the number of bytes of the stream that were read or skipped."""
        return self._source.position

    def __iter__(self) -> Iterator[Frame]:
        if not self._source.peek(1):
            raise TruncatedError("the file is empty: not an llmzip archive")
        while True:
            while frame := self.frame():
                yield frame
            start = self._source.peek(len(START))
            if not start or skip_padding(self._source):
                return
            if not start.startswith(START[: len(start)]):
                raise FormatError("something else follows the end of the archive")

    def short_text(self) -> bytes | None:
        """Return everything if it begins as an archive of the small form does, else None.

        Raises FormatError if it is too long for one.
        """
        if not begins_small(self._source.peek(1)):
            return None
        data = self._source.take(MOST_SMALL + 1)
        if len(data) > MOST_SMALL:
            raise FormatError("not an llmzip archive")
        return data

    def lose(self, frame: Frame, error: LlmzipError) -> NoReturn:  # noqa: ARG002 - Salvager needs it
        """Raise the error that `frame` could not be decoded for."""
        raise error

    def frame(self) -> Frame | None:
        """Return the next frame of this archive, or None at its end, after which the next archive begins.

        Nothing is taken from the stream when TruncatedError is raised: call again once there is more data, `wanted`
        bytes beyond `position`.
        """
        self.wanted = 1 + min(len(self._source.peek(MAX_HEAD)), MAX_HEAD)
        if self._previous is None:
            check_start(self._source.peek(MAX_HEAD))
        elif self._previous.header.last:
            self._skip_trailer()
            self._previous, self._trailer = None, Trailer()
            return None
        frame = self._next(self._previous)
        self._trailer.add(frame)
        self._previous = replace(frame, payload=b"")
        return frame

    def rest(self) -> bytes:
        """Take everything that is left of the stream."""
        size = CHUNK
        while len(data := self._source.peek(size)) == size:
            size *= 2
        self._source.skip(len(data))
        return data

    def _skip_trailer(self) -> None:
        """Pass over the trailer, which may say no more than the frames did."""
        if self._trailer.count > 1:
            expected = self._trailer.pack()
            found = self._source.peek(len(expected))
            if found != expected:
                if expected.startswith(found):
                    self.wanted = len(expected)
                    raise TruncatedError(INCOMPLETE)
                raise ChecksumError("the list of frames at the end does not match the frames")
            self._source.skip(len(found))

    def _next(self, previous: Frame | None) -> Frame:
        window = self._source.peek(MAX_HEAD)
        number = previous.header.number + 1 if previous else 1
        if previous and not window.startswith(SYNC[: len(window)]):
            if window.startswith(TRAILER):
                raise FormatError(f"frame {number} and perhaps more are missing")
            raise FormatError(f"the archive is damaged: frame {number} does not begin where it should")
        frame = parse_frame(window, previous.archive if previous else None)
        if frame.header.number != number:
            raise FormatError(f"frame {frame.header.number} comes where frame {number} should")
        if not self._payloads:
            self._source.skip(frame.stored_size)
            return frame
        self.wanted = frame.stored_size
        return replace(frame, payload=self._source.read(frame.stored_size)[frame.head_size :])


def skip_padding(source: PeekableStream) -> bool:
    """Pass over zero bytes that fill up the last block of a file, and return whether there were any.

    Of any length they would hide that more archives were there, and were lost.
    """
    if source.peek(1) != b"\0":
        return False
    padding = source.peek(MAX_PADDING + 1)
    end = source.position + len(padding)
    if len(padding) > MAX_PADDING or end % BLOCK or padding.strip(b"\0"):
        return False
    source.skip(len(padding))
    return True


def scan(stream: BinaryIO) -> Iterator[Frame]:
    """Return an iterator over all frames without their payloads; seeks over them where it can."""
    return iter(Reader(stream, payloads=False))


def check_start(window: bytes) -> None:
    """Raise FormatError unless `window` may begin an archive of this version."""
    if window.startswith(START[: len(window)]):
        return
    for magic, name in FOREIGN.items():
        if window.startswith(magic):
            raise FormatError(f"not an llmzip archive but a {name} file (use {name})")
    if not window.startswith(MAGIC):
        raise FormatError("not an llmzip archive")
    if window[len(MAGIC)] >= 0xF0:
        raise FormatError("the beginning of the archive is missing")
    raise FormatError(f"archive version {window[len(MAGIC)]}, this llmzip reads version {VERSION} (update llmzip)")
