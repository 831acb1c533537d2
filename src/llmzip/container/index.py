"""Find the frames of an archive without decoding them: for random access.

An archive of several frames ends with a list of them, so that two reads show where everything is; the headers of any
other file are read one by one.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

from llmzip.container.format import (
    FOOTER,
    INCOMPLETE,
    MAX_HEAD,
    START,
    ArchiveHeader,
    Cursor,
    Frame,
    parse_frame,
    parse_trailer,
)
from llmzip.container.reader import Reader, check_start
from llmzip.errors import FormatError, TruncatedError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class _Entry:
    at: int  # in the file
    stored_size: int
    archive: ArchiveHeader | None  # None: the frame begins with it
    number: int


class Index:
    """The positions of the frames of a seekable file, and of their content.

    `base` is where the first archive begins.
    """

    def __init__(self, file: BinaryIO, base: int = 0):
        self._file = file
        sizes, self._entries = self._from_trailer(base) or self._from_headers(base)
        self._starts = [0, *accumulate(sizes)]
        self.size = self._starts.pop()  # of the whole content

    def find(self, position: int) -> tuple[int, int]:
        """Return the number of the frame that holds byte `position` of the content, and where that frame starts."""
        index = bisect_right(self._starts, position) - 1
        return index, self._starts[index]

    def frames(self, index: int) -> Iterator[Frame]:
        """Read the frames from number `index` on."""
        for entry in self._entries[index:]:
            self._file.seek(entry.at)
            data = self._file.read(entry.stored_size)
            if len(data) < entry.stored_size:
                raise TruncatedError(INCOMPLETE)
            frame = parse_frame(data, entry.archive)
            if frame.stored_size != entry.stored_size or frame.header.number != entry.number:
                raise FormatError(f"frame {entry.number} is not what the list of frames says")
            yield Frame(frame.archive, frame.header, frame.head, frame.checksum, data[frame.head_size :])

    def _from_trailer(self, base: int) -> tuple[list[int], list[_Entry]] | None:
        """Return the sizes and positions in the trailer; None if there is none, or more than one archive."""
        tail = 4 + len(FOOTER)
        end = self._file.seek(0, io.SEEK_END)
        self._file.seek(max(base, end - tail))
        footer = self._file.read(tail)
        start = end - tail - int.from_bytes(footer[:4], "little")
        if footer[4:] != FOOTER or start < base:
            return None
        self._file.seek(start)
        listed = parse_trailer(self._file.read(end - start))
        if not listed or sum(stored for _, stored in listed) != start - base:
            return None
        self._file.seek(base)
        head = self._file.read(MAX_HEAD)
        check_start(head)
        archive = ArchiveHeader.parse(Cursor(head))
        places = accumulate((stored for _, stored in listed), initial=base)
        return [size for size, _ in listed], [
            _Entry(at, stored, archive if number > 1 else None, number)
            for number, (at, (_, stored)) in enumerate(zip(places, listed, strict=False), 1)
        ]

    def _from_headers(self, base: int) -> tuple[list[int], list[_Entry]]:
        self._file.seek(base)
        reader = Reader(self._file, payloads=False)
        sizes, entries = [], []
        for frame in reader:
            at, number = base + reader.position - frame.stored_size, frame.header.number
            sizes.append(frame.header.size)
            entries.append(
                _Entry(at, frame.stored_size, None if frame.head.startswith(START) else frame.archive, number)
            )
        return sizes, entries
