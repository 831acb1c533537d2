"""Find the frames of an archive without decoding them: for random access.

All heads are read and checked when an index is made, and the list of frames at the end against them: a list that
lies about the sizes of frames would otherwise shift every byte behind them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import BinaryIO

from llmzip.container.format import INCOMPLETE, START, ArchiveHeader, Frame, parse_frame
from llmzip.container.reader import Reader
from llmzip.errors import FormatError, TruncatedError


@dataclass(frozen=True)
class _Entry:
    at: int  # in the file
    archive: ArchiveHeader | None  # None: the frame begins with it
    frame: Frame  # without its payload


class Index:
    """The positions of the frames of a seekable file, and of their content.

    `base` is where the first archive begins. Raises LlmzipError as :class:`llmzip.container.reader.Reader`.
    """

    def __init__(self, file: BinaryIO, base: int = 0):
        self._file = file
        file.seek(base)
        reader = Reader(file, payloads=False)
        self._entries = [_entry(frame, base + reader.position - frame.stored_size) for frame in reader]
        self._starts = [0, *accumulate(entry.frame.header.size for entry in self._entries)]
        self.size = self._starts.pop()  # of the whole content

    def find(self, position: int) -> tuple[int, int]:
        """Return the number of the frame that holds byte `position` of the content, and where that frame starts."""
        index = bisect_right(self._starts, position) - 1
        return index, self._starts[index]

    def frames(self, index: int) -> Iterator[Frame]:
        """Read the frames from number `index` on; raises FormatError for one that has changed since."""
        for entry in self._entries[index:]:
            self._file.seek(entry.at)
            data = self._file.read(entry.frame.stored_size)
            if len(data) < entry.frame.stored_size:
                raise TruncatedError(INCOMPLETE)
            frame = parse_frame(data, entry.archive)
            if frame != entry.frame:
                raise FormatError(f"frame {entry.frame.header.number} has changed while the file was open")
            yield replace(frame, payload=data[frame.head_size :])


def _entry(frame: Frame, at: int) -> _Entry:
    return _Entry(at, None if frame.head.startswith(START) else frame.archive, frame)
