"""The command line: parse, call, report. What is done with files is in conversion.py."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

import click

from llmzip import __version__, models
from llmzip.conversion import STANDARD, Compression, Conversion, Decompression, open_source, printable
from llmzip.errors import LlmzipError
from llmzip.format import ArchiveHeader
from llmzip.output import remove_unfinished, standard_output
from llmzip.reader import Reader

HINTS = {
    errno.EEXIST: " (use -f to overwrite it)",
    errno.ENOSPC: " (free some space, or write elsewhere with -o)",
}
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llmzip", message="%(prog)s %(version)s")
def cli() -> None:
    """Compress text without loss with a small language model.

    \b
    Examples:
      llmzip compress book.txt          write book.txt.lz
      llmzip decompress book.txt.lz     write book.txt
      llmzip list *.lz                  show sizes and models
      tar c docs | llmzip compress > docs.tar.lz

    Without a file, or with -, commands read standard input and write standard output. The exit code
    is 0 for success, 1 if a file failed, 2 for wrong usage.
    """  # noqa: D301 - click needs the character \b


def _conversion(command: Callable[..., None]) -> Callable[..., None]:
    """Add what compress and decompress have in common."""
    options = (
        click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path()),
        click.option("-o", "--output", metavar="FILE", help="Write to FILE; - is standard output."),
        click.option("-c", "--stdout", is_flag=True, help="Write to standard output."),
        click.option("-f", "--force", is_flag=True, help="Overwrite; use terminals; compress archives."),
        click.option("-k", "--keep", is_flag=True, help="Keep the source, as without this option."),
        click.option("--rm", "remove", is_flag=True, help="Remove the source after success."),
        click.option("-q", "--quiet", is_flag=True, help="Show no progress."),
        click.option("-m", "--model", metavar="NAME|FILE", help="Use this model."),
        click.option(
            "-T",
            "--threads",
            metavar="N",
            type=click.IntRange(0),
            default=0,
            help="Use N threads, 0 for one per core. The result does not depend on it.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@cli.command()
@_conversion
def compress(files: tuple[str, ...], **options: Any) -> None:
    """Compress each FILE to FILE.lz.

    \b
    Examples:
      llmzip compress report.txt
      llmzip compress -o report.lz report.txt
      llmzip compress --rm *.log
      cat *.txt | llmzip compress > all.lz

    The source is kept. The archive has its permissions and modification time.
    """  # noqa: D301
    _run(Compression(**options), files)


@cli.command()
@_conversion
@click.option("--salvage", is_flag=True, help="Write what is left of a damaged archive.")
def decompress(files: tuple[str, ...], **options: Any) -> None:
    """Decompress each FILE.lz to FILE.

    \b
    Examples:
      llmzip decompress report.txt.lz
      llmzip decompress -c report.txt.lz | less
      llmzip decompress -m my.safetensors notes.lz
      llmzip decompress --salvage -o rest.txt damaged.lz

    The archive is kept. It names its model; other models than the shipped ones are searched for in the
    folders of LLMZIP_MODEL_PATH, or given with -m. With --salvage, undamaged frames are written, damaged
    ones are left out and named, and the exit code is 1.
    """  # noqa: D301
    _run(Decompression(**options), files)


@cli.command("list")
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Write a JSON array, one object per file.")
def list_(files: tuple[str, ...], as_json: bool) -> None:
    """Show sizes in bytes, ratio, frames, lanes and model of each FILE.

    \b
    Examples:
      llmzip list *.lz
      llmzip list --json report.txt.lz

    The ratio is that of the uncompressed to the compressed size. Only headers are read; to verify the
    content, decompress to /dev/null.
    """  # noqa: D301
    rows: list[dict[str, Any]] = []
    code = _each(files, lambda name: rows.append(_summary(name)))
    text = json.dumps(rows, indent=2) + "\n" if as_json else _table(rows)
    sys.exit(max(code, _each((STANDARD,), lambda _: _print(text))))


def _print(text: str) -> None:
    with standard_output() as stream:
        stream.write(text.encode(sys.stdout.encoding, "backslashreplace"))


def _summary(name: str) -> dict[str, Any]:
    """Return the row of an archive, from its headers."""
    frames = size = lanes = 0
    used: dict[str, None] = {}
    with open_source(name, archive=True) as source:
        reader = Reader(source, payloads=False)
        for frame in reader:
            frames += 1
            size += frame.header.size
            lanes = max(lanes, len(frame.header.lane_bytes))
            used[_model_name(frame.archive or ArchiveHeader())] = None
    return {
        "compressed": reader.position,
        "uncompressed": size,
        "ratio": round(size / reader.position, 3),
        "frames": frames,
        "lanes": lanes,
        "model": "+".join(used),
        "name": name,
    }


def _model_name(archive: ArchiveHeader) -> str:
    if archive.number is not None:
        return models.name_of(archive.number) or f"number {archive.number}"
    return archive.identity.hex() if archive.identity else "none"


def _table(rows: list[dict[str, Any]]) -> str:
    """Return aligned lines: a head, the rows, and the total of several; nothing for no rows."""
    if not rows:
        return ""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    if len(rows) > 1:
        packed, size, frames = (sum(row[key] for row in rows) for key in ("compressed", "uncompressed", "frames"))
        lines.append([packed, size, round(size / packed, 3), frames, "", "", f"{len(rows)} files"])
    cells = [[printable(str(value)) for value in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    # Numbers to the right, the model and the name to the left.
    align = "rrrrrll"
    justified = (
        [
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, align, strict=True)
        ]
        for line in cells
    )
    return "".join("  ".join(line).rstrip() + "\n" for line in justified)


def _run(conversion: Conversion, files: Sequence[str]) -> NoReturn:
    """Convert every file and leave with the exit code."""
    conflict = conversion.conflict(len(files))
    if conflict:
        raise click.UsageError(conflict)
    sys.exit(_each(files, conversion.run))


def _each(files: Sequence[str], action: Callable[[str], object]) -> int:
    """Do `action` for every file, report those that fail, and return the exit code."""
    code = 0
    for name in files or (STANDARD,):
        try:
            action(name)
        except BrokenPipeError:
            _die_of_broken_pipe()
        except Exception as error:  # whatever is wrong with one file, the others get their turn
            code = 1
            _report(name, error)
    return code


def _report(name: str, error: Exception) -> None:
    """Write one line about an error."""
    if os.environ.get("LLMZIP_DEBUG"):
        traceback.print_exception(error)
    file = getattr(error, "filename", None) or ("(stdin)" if name == STANDARD else name)
    if isinstance(error, LlmzipError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "not enough memory"
    elif isinstance(error, OSError):
        text = (error.strerror or str(error)) + HINTS.get(error.errno or 0, "")
    else:
        reason = str(error).partition("\n")[0]
        text = f"internal error: {type(error).__name__}: {reason} (please report; LLMZIP_DEBUG=1 tells more)"
    click.echo(f"llmzip: {printable(str(file))}: {printable(text)}", err=True)


def _die_of_broken_pipe() -> NoReturn:
    """End as other tools do when nobody reads their output: silently, by the signal."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(1)  # the signal is blocked


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """Remove temporary files and end at once.

    An exception from here, raised wherever the main thread is, could leave a lock closed that other
    threads wait for.
    """
    remove_unfinished()
    os._exit(128 + number)


def main() -> None:
    """Run the command line."""
    # A file opened under the number of a closed standard stream would be taken for it.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, _stop)
    cli(prog_name="llmzip")
