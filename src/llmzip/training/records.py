"""Records with text in one of their fields: the lines of a JSON Lines file, the rows of a Parquet file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from llmzip.errors import FileError

LONGEST = 1 << 26  # bytes of a record: more is no text of a person, and would have to be held in memory
ROWS = 64  # of a Parquet file that are read at once
BUFFER = 1 << 20  # bytes of a column that are read at once
SHOWN_FIELDS = 10
NO_PYARROW = 'is a Parquet file, and pyarrow is missing (pip install "llmzip[corpora]")'


def pyarrow_module(path: Path) -> Any:
    """Return pyarrow, with what reads Parquet; raises FileError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise FileError(str(path), NO_PYARROW) from error
    return pyarrow


def json_texts(path: Path, file: BinaryIO, field: str, left_out: Counter[str]) -> Iterator[bytes]:
    """Yield the text of one field of each line, UTF-8; raises FileError if no line has it.

    `left_out` counts the lines that have none, or are no JSON.
    """
    names: dict[str, None] = {}

    def values() -> Iterator[Any]:
        while line := file.readline(LONGEST + 1):
            if len(line) > LONGEST:
                raise ValueError(f"a line has more than {LONGEST} bytes")
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                left_out["damaged records"] += 1
                continue
            if isinstance(record, dict):
                if len(names) < SHOWN_FIELDS:
                    names.update(dict.fromkeys(record))
                yield record.get(field)
            else:
                yield None

    yield from _texts(path, values(), field, names, left_out)


def parquet_texts(path: Path, file: BinaryIO, field: str, left_out: Counter[str]) -> Iterator[bytes]:
    """Yield the text of one column, row by row, UTF-8; raises FileError if no row has it.

    `left_out` counts the rows that have none.
    """
    pyarrow = pyarrow_module(path)

    def values() -> Iterator[Any]:
        try:
            table = pyarrow.parquet.ParquetFile(file, buffer_size=BUFFER, page_checksum_verification=True)
            names.extend(table.schema_arrow.names)
            if field in names:
                for batch in table.iter_batches(ROWS, columns=[field], use_threads=False):
                    yield from batch.column(0).to_pylist()
        except pyarrow.ArrowException as error:
            raise ValueError(str(error)) from error

    names: list[str] = []
    yield from _texts(path, values(), field, names, left_out)


def _texts(
    path: Path, values: Iterable[Any], field: str, names: Iterable[str], left_out: Counter[str]
) -> Iterator[bytes]:
    found = False
    for value in values:
        text = value.encode(errors="replace") if isinstance(value, str) else value
        if isinstance(text, bytes) and text:
            found = True
            yield text
        else:
            left_out[f"records without text in the field {field}"] += 1
    if not found:
        shown = ", ".join(list(names)[:SHOWN_FIELDS])
        there = f"give one of {shown} with --field" if shown else "are its lines JSON objects?"
        raise FileError(str(path), f"has no text in a field {field} ({there})")
