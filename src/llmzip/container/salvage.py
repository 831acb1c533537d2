"""Read what is left of a damaged archive, and report what is lost.

Every frame carries a sync word, its number and a check of its header: after damage, the search for
the next one goes on byte by byte. The sizes of frames whose headers are lost come from the trailer,
if that is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from llmzip.container.format import (
    FOOTER,
    MAGIC,
    MAX_HEAD,
    START,
    SYNC,
    TRAILER,
    ArchiveHeader,
    Frame,
    Trailer,
    parse_frame,
    parse_trailer,
)
from llmzip.container.peekable import CHUNK, PeekableStream
from llmzip.container.reader import skip_padding
from llmzip.errors import FormatError, LlmzipError, SalvageError

MAX_TRAILER = 1 << 24
MAX_NOTES = 8
# Bytes that the search for the ends of trailers may go over: at first, and for each byte that was read.
FREE_EXAMINATION = 1 << 25
EXAMINATION = 4
FOOTER_COST = 256  # bytes that looking at one footer counts for
MAX_OVERLAPS = 64  # frames inside lost ones that are tried: a hostile file may hold a head at every few bytes


@dataclass
class _Loss:
    """A run of lost frames, and their bytes in the content as far as known."""

    first: int
    last: int
    start: int | None
    end: int | None

    def __str__(self) -> str:
        several = self.last > self.first
        name = f"frames {self.first} to {self.last}" if several else f"frame {self.first}"
        if self.start is None or self.end is None:
            return f"{name} lost (size unknown)"
        return f"{name} lost (bytes {self.start} to {self.end - 1})"


class _Archive:
    """The account of one archive's frames, in the order of their numbers."""

    def __init__(self, header: ArchiveHeader | None):
        self.header = header
        self.next = 1  # number
        self.complete = False  # the last frame was seen
        self.position: int | None = 0  # in the content
        self.losses: list[_Loss] = []
        self.trailer = Trailer()  # of the frames whose headers were seen

    def begin(self, frame: Frame) -> None:
        """Record the frame that was found next; those before it are lost."""
        header = frame.header
        if header.number > self.next:
            self._lose(header.number - 1, None)
        self.trailer.add(frame)
        self.complete = header.last

    def end(self, frame: Frame, *, lost: bool) -> None:
        """Record whether it could be decoded."""
        if lost:
            self._lose(frame.header.number, frame.header.size)
            return
        self.next += 1
        if self.position is not None:
            self.position += frame.header.size

    def _lose(self, last: int, size: int | None) -> None:
        start, end = self.position, None
        if start is not None and size is not None:
            end = start + size
        if self.losses and self.losses[-1].last + 1 == self.next:
            self.losses[-1].last, self.losses[-1].end = last, end
        else:
            self.losses.append(_Loss(self.next, last, start, end))
        self.next, self.position = last + 1, end

    def notes(self, trailer: bytes) -> list[str]:
        """Return notes on what is lost or in doubt, with the help of a valid `trailer` or without (empty)."""
        if trailer:
            sizes = [size for size, _ in parse_trailer(trailer) or ()]
            if len(sizes) >= self.next:
                self._lose(len(sizes), None)
            starts = [0, *itertools.accumulate(sizes)]
            for loss in self.losses:
                if loss.last <= len(sizes):
                    loss.start, loss.end = starts[loss.first - 1], starts[loss.last]
        notes = [str(loss) for loss in self.losses[:MAX_NOTES]]
        if len(self.losses) > MAX_NOTES:
            notes.append(f"{len(self.losses) - MAX_NOTES} more losses")
        if not trailer and not self.complete:
            notes.append(f"everything after frame {self.next - 1} lost")
        if trailer and self.trailer.count == self.next - 1 and self.trailer.pack() != trailer:
            notes.append("frames of another archive are among them")
        if not trailer and self.complete and self.next > 2:
            notes.append("the list of frames at the end lost")
        return notes


class Salvager:
    """Iterate over the frames in a stream that are left, like :class:`llmzip.container.reader.Reader`.

    The caller verifies each frame before it asks for the next one, and calls `lose` for those that
    cannot be decoded. At the end, SalvageError says what is lost; FormatError if that is all.
    """

    def __init__(self, stream: BinaryIO):
        self._source = PeekableStream(stream)
        self._lost = False
        self._kept = 0
        self._archives = 0
        self._skipped = False  # bytes that belong to no frame
        self.examined = 0  # bytes, in search of the ends of trailers
        self._overlaps = 0
        self._notes: list[str] = []

    def lose(self, frame: Frame, error: LlmzipError) -> None:  # noqa: ARG002 - as Reader.lose
        """Record that the last `frame` is damaged."""
        self._lost = True

    def __iter__(self) -> Iterator[Frame]:
        archive: _Archive | None = None
        while window := self._source.peek(MAX_HEAD):
            if archive and window.startswith(TRAILER) and (trailer := self._trailer()):
                self._close(archive, trailer)
                archive = None
                self._source.skip(len(trailer))
                continue
            frame = _frame(window, archive)
            if frame is None:
                if (archive is None or archive.complete) and skip_padding(self._source):
                    break
                self._skipped = True
                self._search()
                continue
            if archive is None or archive.complete or window.startswith(START):
                self._close(archive)
                archive = _Archive(frame.archive)
            yield from self._examine(archive, frame)
        self._close(archive)
        if not self._kept:
            raise FormatError("nothing can be salvaged: no undamaged frame was found")
        if self._skipped and not self._notes:
            self._notes.append("bytes that belong to no frame left out")
        if self._notes:
            raise SalvageError(f"damaged: {', '.join(self._notes)}; the rest is written")

    def _examine(self, archive: _Archive, frame: Frame) -> Iterator[Frame]:
        """Yield `frame` with its payload, and go to where the next one may begin."""
        archive.begin(frame)
        window = self._source.peek(frame.stored_size + len(MAGIC))
        rest = window[frame.stored_size :]
        self._lost = len(window) < frame.stored_size
        if not self._lost:
            yield replace(frame, payload=window[frame.head_size : frame.stored_size])
        archive.end(frame, lost=self._lost)
        self._kept += not self._lost
        if self._lost and rest != MAGIC and self._overlaps < MAX_OVERLAPS:
            # Bytes may be missing from the payload: the next frame may begin before its end.
            self._overlaps += 1
            self._source.skip(frame.head_size)
        else:
            self._source.skip(frame.stored_size)

    def _search(self) -> None:
        """Go to the next place where a frame or a trailer may begin, or to the end."""
        self._source.skip(1)
        while (at := self._source.find(MAGIC, 0, CHUNK)) < 0:
            if self._source.buffered < CHUNK:
                self._source.skip(self._source.buffered)
                return
            self._source.skip(CHUNK - len(MAGIC) + 1)  # the magic may begin in the last two bytes
        self._source.skip(at)

    def _trailer(self) -> bytes:
        """Return the trailer that comes next, or nothing if it is damaged.

        A hostile file may begin trailers everywhere, and end none or all: so the search for their ends, which goes
        over megabytes, is paid for by what has been read of the file.
        """
        source, at = self._source, len(TRAILER)
        while self.examined <= FREE_EXAMINATION + EXAMINATION * source.position:
            end = source.find(FOOTER, at, MAX_TRAILER)
            self.examined += FOOTER_COST + (min(source.buffered, MAX_TRAILER) if end < 0 else end) - at
            if end < 0:
                break
            # The size is compared first: a long file may hold many footers, and copies of it take time.
            if int.from_bytes(source.inside(end - 4, end), "little") == end - 4:
                self.examined += end
                trailer = source.peek(end + len(FOOTER))
                if parse_trailer(trailer):
                    return trailer
            at = end + 1
        return b""

    def _close(self, archive: _Archive | None, trailer: bytes = b"") -> None:
        if archive:
            self._archives += 1
            prefix = f"of archive {self._archives}: " if self._archives > 1 else ""
            self._notes += [prefix + note for note in archive.notes(trailer)]


def _frame(window: bytes, archive: _Archive | None) -> Frame | None:
    """Return the frame that begins `window` if its header is sound and in its place."""
    if not window.startswith((START, SYNC)):
        return None
    if archive and archive.complete:
        archive = None  # the header of the next one is lost
    try:
        frame = parse_frame(window, archive.header if archive else None)
    except LlmzipError:
        return None
    if archive and window.startswith(SYNC) and frame.header.number < archive.next:
        return None
    return frame
