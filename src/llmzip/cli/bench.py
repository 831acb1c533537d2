"""The command that compares llmzip with other compressors on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from llmzip.atomic_output import check_target, output_file
from llmzip.cli.options import MODEL_HELP, THREADS, model_option
from llmzip.cli.runner import each, write
from llmzip.cli.signals import FATAL, end_by
from llmzip.errors import FileError

if TYPE_CHECKING:
    from llmzip.tools.benchmark import Result


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(readable=False))
@model_option(multiple=True, help=MODEL_HELP + " May be repeated.")
@THREADS
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of a table.")
@click.option("--plot", metavar="FILE", help="Draw size against speed, as .png or .svg.")
@click.option("-f", "--force", is_flag=True, help="Overwrite the plot.")
def bench(
    files: tuple[str, ...], model: tuple[str, ...], threads: int, as_json: bool, plot: str | None, force: bool
) -> None:
    """Compare size, speed and memory with other compressors.

    \b
    Examples:
      llmzip bench book.txt
      llmzip bench --plot sizes.svg *.txt
      llmzip bench --json book.txt > book.json

    Beside llmzip: gzip, bzip2, xz, zstd, brotli, 7z and zpaq, as far as they are installed, at
    their strongest usual settings. Every round trip is checked. Speeds are those of whole processes
    with their start-up, so that small files make llmzip look slow; measure on a quiet machine.
    """  # noqa: D301 - click needs the character \b
    if plot is not None and not plot.endswith((".png", ".svg")):
        raise click.UsageError("--plot needs a name that ends in .png or .svg")
    if plot is not None and each((plot,), lambda path: check_target(path, source=None, force=force)):
        sys.exit(1)  # before the work
    from llmzip.tools import benchmark, machine

    def tell(text: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\033[K{text}", err=True, nl=False)

    own = [benchmark.llmzip_tool(name, threads) for name in model or (None,)]
    tools = [*own, *(tool for tool in benchmark.OTHERS if tool.installed)]
    results: list[benchmark.Result] = []

    def measure(name: str) -> None:
        if os.path.isdir(name):
            raise FileError(name, "is a directory (give its files)")
        if not results:
            tell("warming up")
            for tool in own:
                benchmark.warm_up(tool)
        # All of its results, or none.
        results.extend(list(benchmark.bench([name], tools, tell)))
        tell("")

    with _stopped_by_exception():
        code = each(files, measure)
    if results:
        summary = benchmark.totals(results)
        rows = [*results, *(summary if len(results) > len(tools) else ())]
        about = {"machine": machine.processor(), "versions": machine.versions()}
        if as_json:
            text = json.dumps({**about, "results": [row.as_dict() for row in rows]}, indent=2) + "\n"
        else:
            text = "\n".join([*about.values(), "", benchmark.table(rows)])
        code = max(code, write(text))
        if plot is not None:
            code = max(code, each((plot,), lambda path: _draw(path, force, summary)))
    sys.exit(code)


class _Stopped(BaseException):
    """A fatal signal came; `args` holds its number."""


@contextmanager
def _stopped_by_exception() -> Iterator[None]:
    """Make signals unwind the stack, so that the folder with the copies is removed and the tools are ended."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        raise _Stopped(number)

    before = {number: signal.getsignal(number) for number in FATAL}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    except _Stopped as stopped:
        end_by(stopped.args[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _draw(path: str, force: bool, results: list[Result]) -> None:
    from llmzip.tools.benchmark_plot import size_against_speed

    with output_file(path, force=force) as stream:
        size_against_speed(results, stream, path.rpartition(".")[2])
