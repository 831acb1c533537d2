"""The command that lists what is in archives."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

import llmzip
from llmzip.api.remote import without_secrets
from llmzip.batch.names import SUFFIX
from llmzip.batch.plan import names_in
from llmzip.cli.options import FILES, FILES_FROM, RECURSIVE
from llmzip.cli.runner import each, write
from llmzip.cli.source import open_source, printable


@click.command("list")
@FILES
@RECURSIVE
@FILES_FROM
@click.option("--json", "as_json", is_flag=True, help="Write a JSON array, one object per file.")
def list_(files: tuple[str, ...], recursive: bool, files_from: str | None, as_json: bool) -> None:
    """Show sizes, ratio, frames, lanes, memory and model of each FILE.

    \b
    Examples:
      llmzip list *.lz
      llmzip list -r backup
      llmzip list --json report.txt.lz

    Sizes are in bytes, and so is the memory that decompressing takes, about; the ratio is that of the uncompressed to
    the compressed size. Only headers are read: to verify the content, use llmzip test.
    """  # noqa: D301 - click needs the character \b
    rows: list[dict[str, Any]] = []
    wanted = (lambda path: path.endswith(SUFFIX)) if recursive else None
    code = 0
    if files_from is not None:
        listed: list[str] = []
        code = each([files_from], lambda name: listed.extend(names_in(name)))
        files = (*files, *listed)
    if files or files_from is None:  # no files are standard input, and an empty list is nothing
        code = max(code, each(files, lambda name: rows.append(_row(name)), wanted))
    text = json.dumps(rows, indent=2) + "\n" if as_json else _table(rows)
    sys.exit(max(code, write(text)))


def _row(name: str) -> dict[str, Any]:
    """Return what the headers of an archive say."""
    with open_source(name, archive=True, ahead=False) as source:
        info = llmzip.archive_info(source)
    return {
        "compressed": info.compressed_size,
        "uncompressed": info.decompressed_size,
        "ratio": round(info.decompressed_size / info.compressed_size, 3),
        "frames": info.frames,
        "lanes": info.lanes,
        "memory": info.memory,
        "model": "+".join(info.models),
        "name": without_secrets(name),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    """Return aligned lines: a head, the rows, and the total of several; nothing for no rows."""
    if not rows:
        return ""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    if len(rows) > 1:
        packed, size, frames = (sum(row[key] for row in rows) for key in ("compressed", "uncompressed", "frames"))
        lines.append(
            [
                packed,
                size,
                round(size / packed, 3),
                frames,
                "",
                max(row["memory"] for row in rows),
                "",
                f"{len(rows)} files",
            ]
        )
    # Numbers to the right, the model and the name to the left.
    return aligned(lines, "rrrrrrll")


def aligned(lines: list[list[Any]], sides: str) -> str:
    """Return lines of cells as a table; `sides` says for each column "l" or "r"."""
    cells = [[printable(str(value)) for value in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    justified = (
        [
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, sides, strict=True)
        ]
        for line in cells
    )
    return "".join("  ".join(line).rstrip() + "\n" for line in justified)
