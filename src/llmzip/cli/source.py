"""What a command reads: a named file or standard input, and how it is called in messages."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from llmzip.api.remote import is_url, open_url
from llmzip.errors import FileError

STANDARD = "-"  # standard input or output


@contextmanager
def open_source(
    name: str, *, archive: bool, force: bool = False, special: bool = True, ahead: bool = True
) -> Iterator[BinaryIO]:
    """Open a file, a URL, or standard input, for reading; raises FileError for what should not be read.

    `archive` says that it must be an archive, which is not read from a terminal unless `force`. `special` allows
    devices and pipes. What comes `ahead` behind a URL is fetched, too.
    """
    if name == STANDARD:
        if sys.stdin is None:
            raise FileError("(stdin)", "is closed")
        if archive and sys.stdin.isatty() and not force:
            raise FileError("(stdin)", "is a terminal (give a file; --help shows examples)")
        yield sys.stdin.buffer
        return
    if is_url(name):
        with open_url(name, ahead=ahead) as source:
            yield source
        return
    status = os.stat(name)
    if stat.S_ISDIR(status.st_mode):
        raise FileError(name, "is a directory (make it a file with tar; -r takes its files where there is one)")
    if not special and not stat.S_ISREG(status.st_mode):
        raise FileError(name, "is not a regular file (use -c, or -o FILE)")
    with open(name, "rb") as file:
        yield file


def printable(text: str) -> str:
    """Return `text` with everything escaped that would spoil a line, the terminal or the encoding."""
    # The bytes of names that are not in the locale's encoding come as lone surrogates; most of them are UTF-8.
    text = re.sub(
        "[\udc80-\udcff]+",
        lambda run: run[0].encode("ascii", "surrogateescape").decode("utf-8", "backslashreplace"),
        text,
    )
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
