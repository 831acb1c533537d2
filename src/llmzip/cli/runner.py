"""Run an action on each of several files, and report failures: one line each, and the exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial

import click

from llmzip.atomic_output import standard_output
from llmzip.batch.failure import explanation, subject
from llmzip.batch.plan import inputs
from llmzip.cli.signals import end_by
from llmzip.cli.source import STANDARD, printable
from llmzip.threads import in_order


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

    found = inputs(files or (STANDARD,), failed, wanted=wanted)
    for path, error in in_order((partial(_attempt, file.name, action) for file in found), jobs):
        if isinstance(error, BrokenPipeError):
            end_by(signal.SIGPIPE)  # as other tools when their output is closed, silently
        if error:
            failed(path, error)
    return 1 if failures else 0


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
    file = subject("(stdin)" if name == STANDARD else name, error)
    click.echo(f"llmzip: {printable(file)}: {printable(explanation(error))}", err=True)


def write(text: str) -> int:
    """Write to standard output; return the exit code."""

    def put(_: str) -> None:
        with standard_output() as stream:
            stream.write(text.encode(sys.stdout.encoding, "backslashreplace"))

    return each((), put)
