"""The commands that read whole files: compress, decompress, test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from llmzip.cli.conversion import Compression, Conversion, Decompression, Verification
from llmzip.cli.runner import each
from llmzip.model import registry

Command = Callable[..., None]


def _with(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds `options` in their order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


# Unreadable files are for the command to report, one by one.
FILES = click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(readable=False))
RECURSIVE = click.option("-r", "--recursive", is_flag=True, help="Take the files in folders, and below.")
THREADS = click.option(
    "-T",
    "--threads",
    metavar="N",
    type=click.IntRange(0),
    default=0,
    envvar="LLMZIP_THREADS",
    show_envvar=True,
    help="Use N threads, 0 for one per core. The result does not depend on it.",
)
MODEL_HELP = "Use this model."


def complete_model(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the models whose names go on like that, and leave files to the shell."""
    names = [name for name in registry.available() if name.startswith(incomplete)]
    return [*map(CompletionItem, names), CompletionItem(incomplete, type="file")]


def model_option(**settings: Any) -> Callable[[Command], Command]:
    """Return the option -m."""
    return click.option(
        "-m", "--model", **{"metavar": "NAME|FILE", "help": MODEL_HELP, "shell_complete": complete_model, **settings}
    )


MODEL_TO_USE = model_option(envvar="LLMZIP_MODEL", show_envvar=True)
MODEL_OF_ARCHIVE = model_option()  # which names its model: no environment variable overrides it


_conversion = _with(
    FILES,
    click.option("-o", "--output", metavar="FILE", help="Write to FILE; - is standard output."),
    click.option("-c", "--stdout", is_flag=True, help="Write to standard output."),
    click.option("-f", "--force", is_flag=True, help="Overwrite; use terminals; compress archives."),
    click.option("-k", "--keep", is_flag=True, help="Keep the source, as without this option."),
    click.option("--rm", "remove", is_flag=True, help="Remove the source after success."),
)
_work = _with(
    RECURSIVE,
    click.option("-q", "--quiet", is_flag=True, help="Tell nothing but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Tell sizes and speed of each file."),
    click.option("--no-progress", is_flag=True, help="Show no progress bar."),
    THREADS,
)


@click.command()
@_conversion
@_work
@model_option(
    envvar="LLMZIP_MODEL",
    show_envvar=True,
    help="Use this model, or none; else the default model where it pays.",
)
@click.option("--verify", is_flag=True, help="Decompress each archive before it gets its name.")
def compress(files: tuple[str, ...], **options: Any) -> None:
    """Compress each FILE to FILE.lz.

    \b
    Examples:
      llmzip compress report.txt
      llmzip compress -o report.lz report.txt
      llmzip compress --rm *.log
      llmzip compress -r notes
      cat *.txt | llmzip compress > all.lz

    The source is kept. The archive has its permissions and modification time. With -r, archives among
    the files of a folder are passed over. With --rm, archives are verified before the source is removed.
    """  # noqa: D301 - click needs the character \b
    _run(Compression(**options), files)


@click.command()
@_conversion
@_work
@MODEL_OF_ARCHIVE
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


@click.command()
@FILES
@_work
@MODEL_OF_ARCHIVE
def test(files: tuple[str, ...], **options: Any) -> None:
    """Verify each FILE.lz, and write nothing.

    \b
    Examples:
      llmzip test *.lz
      llmzip test -rv backup

    Everything is decompressed and compared with its checksums: what passes can be restored here.
    """  # noqa: D301
    _run(Verification(**options), files)


def _run(conversion: Conversion, files: tuple[str, ...]) -> None:
    """Convert every file and leave with the exit code."""
    conflict = conversion.conflict(len(files))
    if conflict:
        raise click.UsageError(conflict)
    sys.exit(each(files, conversion.run, conversion.wanted if conversion.recursive else None))
