"""Run an action on each of several files, and report failures: one line each, and the exit code."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import click

from llmzip.atomic_output import standard_output
from llmzip.cli.signals import end_by
from llmzip.cli.source import STANDARD, printable
from llmzip.container.format import INCOMPLETE
from llmzip.errors import ChecksumError, LlmzipError
from llmzip.threads import in_order

HINTS = {
    errno.EEXIST: " (use -f to overwrite it)",
    errno.ENOSPC: " (free some space, or write elsewhere with -o)",
}
SALVAGE = " (decompress --salvage writes the undamaged frames)"

Failed = Callable[[str, Exception], None]


def each(
    files: Sequence[str],
    action: Callable[[str], object],
    wanted: Callable[[str], bool] | None = None,
    jobs: int = 1,
) -> int:
    """Run `action` on every file, or on standard input if there is none, and report failures; return the exit code.

    With `wanted`, folders stand for the regular files in and below them that it is true for. With several `jobs`, as
    many files are worked on at once, in threads; failures are reported in the order of the files nevertheless.
    """
    failures = []

    def failed(name: str, error: Exception) -> None:
        failures.append(name)
        report(name, error)

    def paths() -> Iterator[str]:
        for name in files or (STANDARD,):
            if wanted is not None and os.path.isdir(name):
                yield from _below(name, wanted, failed)
            else:
                yield name

    for path, error in in_order((partial(_attempt, path, action) for path in paths()), jobs):
        if isinstance(error, BrokenPipeError):
            end_by(signal.SIGPIPE)  # as other tools when their output is closed, silently
        if error:
            failed(path, error)
    return 1 if failures else 0


def _below(folder: str, wanted: Callable[[str], bool], failed: Failed) -> Iterator[str]:
    """Yield the wanted files in and below `folder`, sorted; links are not followed."""
    for parent, folders, names in os.walk(folder, onerror=lambda error: failed(error.filename, error)):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            try:
                meant = stat.S_ISREG(os.lstat(path).st_mode) and wanted(path)
            except OSError:
                meant = True  # the action reports what is wrong with it
            if meant:
                yield path


def _attempt(name: str, action: Callable[[str], object]) -> tuple[str, Exception | None]:
    """Run `action` on a file; return its name and what is wrong with it, whatever it is: the others get their turn."""
    try:
        action(name)
    except Exception as error:
        return name, error
    return name, None


def report(name: str, error: Exception) -> None:
    """Write one line about an error."""
    if os.environ.get("LLMZIP_DEBUG"):
        traceback.print_exception(error)
    file = getattr(error, "filename", None) or ("(stdin)" if name == STANDARD else name)
    if isinstance(error, LlmzipError):
        text = str(error)
        if isinstance(error, ChecksumError) or text == INCOMPLETE:
            text += SALVAGE
    elif isinstance(error, MemoryError):
        # NumPy's subclass has other arguments than a hint.
        hint = error.args[0] if type(error) is MemoryError and error.args else "close other programs"
        text = f"not enough memory ({hint})"
    elif isinstance(error, OSError):
        text = (error.strerror or str(error)) + HINTS.get(error.errno or 0, "")
    else:
        reason = str(error).partition("\n")[0]
        text = f"internal error: {type(error).__name__}: {reason} (please report; LLMZIP_DEBUG=1 shows more)"
    click.echo(f"llmzip: {printable(str(file))}: {printable(text)}", err=True)


def write(text: str) -> int:
    """Write to standard output; return the exit code."""

    def put(_: str) -> None:
        with standard_output() as stream:
            stream.write(text.encode(sys.stdout.encoding, "backslashreplace"))

    return each((), put)
