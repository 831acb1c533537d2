"""Books of Project Gutenberg without the header and the licence that each of them carries.

They are the same in every book; a model would learn them by heart. The markers are those of the files since 2004, and
of the *small print* before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

NAME = re.compile(rb"project gutenberg", re.IGNORECASE)
START = re.compile(rb"\*\*\* ?START OF TH(E|IS) PROJECT GUTENBERG|\*END\*? ?THE SMALL PRINT", re.IGNORECASE)
END = re.compile(rb"\*\*\* ?END OF TH(E|IS) PROJECT GUTENBERG|End of (the |this )?Project Gutenberg", re.IGNORECASE)
HEADER_BYTES = 1 << 16  # within which a header ends; the small print takes 13,000 bytes
MARKER_LINES = 4  # that a marker with a long title takes at most


def is_likely(head: bytes) -> bool:
    """Return whether a file that begins like this may be a book of Project Gutenberg."""
    return NAME.search(head) is not None


class Book:
    """Iterate over the lines between header and footer; over all of them, if no header ends in the first 64 KiB.

    Afterwards `cut` says whether there was a header.
    """

    def __init__(self, lines: Iterable[bytes]):
        self._lines = iter(lines)
        self.cut = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._before()
        for line in self._lines:
            if self.cut and END.match(line):
                return
            yield line

    def _before(self) -> list[bytes]:
        """Return the lines read in search of the header's end, or none of them if it was found."""
        seen: list[bytes] = []
        size = 0
        for line in self._lines:
            if START.match(line):
                self.cut = True
                self._pass_marker(line)
                return []
            seen.append(line)
            size += len(line)
            if size > HEADER_BYTES:
                break
        return seen

    def _pass_marker(self, line: bytes) -> None:
        for _ in range(MARKER_LINES - 1):
            if line.rstrip().endswith(b"*"):
                return
            line = next(self._lines, b"*")
