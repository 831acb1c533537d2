"""The documents of a corpus' files, whatever kind of file holds them; read anew each time, never kept.

The kind goes by the name, without the suffix of a compressor:

- text: documents are separated by a line that holds only the byte 0x1E (record separator); a file without one is a
  document. What Project Gutenberg puts before and behind a book is cut off.
- ``.jsonl``, ``.ndjson``: one field of each line is a document, if a field is asked for; else they are text.
- ``.parquet``: one column of each row is a document.
- ``.xml``, if it is a dump of MediaWiki: each article is a document; else it is text.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from dataclasses import field as of_dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from llmzip.errors import FileError
from llmzip.training import gutenberg, mediawiki
from llmzip.training.compressed import content_name, is_compressed, opened, zstd_module
from llmzip.training.records import json_texts, parquet_texts, pyarrow_module

SEPARATOR = b"\x1e\n"
BLOCK = 1 << 16  # bytes of a line that are read at once
HEAD = 8192  # bytes that distinguish text from other data
FIELD = "text"  # of Parquet files, if none is asked for
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
JSON_AS_TEXT = "JSON Lines as text"
LICENCES = "headers and footers of Project Gutenberg"


class BinaryFileError(FileError):
    """A file does not hold text."""


@dataclass
class Tally:
    """What was read: how many files of each kind, and what of them was left out."""

    kinds: Counter[str] = of_dataclass(default_factory=Counter)
    left_out: Counter[str] = of_dataclass(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        self.kinds += other.kinds
        self.left_out += other.left_out


def text_files(paths: Iterable[Path]) -> list[Path]:
    """List the regular files below `paths` in a fixed order, but for hidden ones and those in hidden folders."""
    found: list[Path] = []
    for path in paths:
        below = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        found += [p for p in below if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    return found


def domain_of(name: Path) -> str:
    """Return the kind of text that a file's name stands for: what is before the first ``_``, without suffixes."""
    return content_name(name).stem.split("_")[0]


def is_plain(path: Path) -> bool:
    """Return whether a file is its documents, byte for byte, but for separators and the licences of books."""
    return not is_compressed(path) and path.suffix.lower() not in (PARQUET, ".xml", *JSON_LINES)


def require_packages(path: Path) -> None:
    """Raise FileError if a package that reads this kind of file is not installed."""
    if path.suffix.lower() == ".zst":
        zstd_module(path)
    elif path.suffix.lower() == PARQUET:
        pyarrow_module(path)


def document_parts(path: Path, field: str | None = None, tally: Tally | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield `(number, part)`: the documents of a file in parts, of a line or less if it is text.

    However large the file is, no more than a record or an article is in memory. `field` is the one that is taken of
    records; without it, JSON Lines are text, and ``text`` is taken of Parquet files. `tally` is added to. Raises
    BinaryFileError for what is no text, and FileError for what cannot be read to its end.
    """
    tally = tally or Tally()
    with opened(path) as file:
        suffix = content_name(path).suffix.lower()
        if path.suffix.lower() == PARQUET:  # compressed once more, it could be read in one direction only
            tally.kinds["Parquet"] += 1
            yield from enumerate(parquet_texts(path, file, field or FIELD, tally.left_out))
            return
        head = file.read(HEAD)
        file.seek(0)
        if b"\0" in head:
            raise BinaryFileError(str(path), "is binary: a model is trained on text (give UTF-8 text)")
        if suffix == ".xml" and mediawiki.is_dump(head):
            tally.kinds["MediaWiki dump"] += 1
            yield from enumerate(mediawiki.articles(file, tally.left_out))
        elif suffix in JSON_LINES and field:
            tally.kinds["JSON Lines"] += 1
            yield from enumerate(json_texts(path, file, field, tally.left_out))
        else:
            tally.kinds[JSON_AS_TEXT if suffix in JSON_LINES else "text"] += 1
            parts = _text_parts(file)
            yield from _without_licences(parts, tally) if gutenberg.is_likely(head) else parts


def _text_parts(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number, at_line_start, seen = 0, True, False
    while part := file.readline(BLOCK):
        if at_line_start and part == SEPARATOR:
            number, seen = number + seen, False  # nothing between two separators is no document
        else:
            seen = True
            yield number, part
        at_line_start = part.endswith(b"\n")


def _without_licences(numbered: Iterator[tuple[int, bytes]], tally: Tally) -> Iterator[tuple[int, bytes]]:
    for number, parts in groupby(numbered, key=itemgetter(0)):
        book = gutenberg.Book(part for _, part in parts)
        for part in book:
            yield number, part
        if book.cut:
            tally.left_out[LICENCES] += 1


def documents(path: Path, field: str | None = None, tally: Tally | None = None) -> Iterator[bytes]:
    """Yield the documents of a file, each as a whole; arguments and errors are those of :func:`document_parts`."""
    for _, parts in groupby(document_parts(path, field, tally), key=itemgetter(0)):
        yield b"".join(part for _, part in parts)


def readable_texts(paths: Iterable[Path], field: str | None = None) -> Iterator[tuple[Path, bytes]]:
    """Yield the files in and below `paths` with their documents, joined; warns of those that cannot be read."""
    for path in text_files(paths):
        try:
            text = b"".join(documents(path, field))
        except FileError as error:
            warnings.warn(f"{error.filename}: {error}; skipped", stacklevel=2)
            continue
        yield path, text
