"""The command that shows where the bits of a file go."""

from __future__ import annotations

import os
import sys

import click

from llmzip.atomic_output import check_target, output_file
from llmzip.cli.options import MODEL_TO_USE
from llmzip.cli.progress_bar import on_terminal, progress_bar
from llmzip.cli.runner import each, write
from llmzip.cli.source import open_source, printable
from llmzip.errors import FileError
from llmzip.model import registry


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(readable=False))
@click.option("--html", "page", metavar="FILE", help="Write a page with every token.")
@click.option("-f", "--force", is_flag=True, help="Overwrite the page.")
@click.option(
    "-n",
    "--length",
    metavar="N",
    type=click.IntRange(0, 1 << 26),
    default=20_000,
    show_default=True,
    help="Look at the first N bytes, 0 for all.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@MODEL_TO_USE
def inspect(file: str, page: str | None, force: bool, length: int, quiet: bool, model: str | None) -> None:
    """Show where the bits of a text go.

    \b
    Examples:
      llmzip inspect book.txt
      llmzip inspect book.txt --html report.html

    Reports what the text takes, what it would take by the language model alone, by contexts and
    matches alone, and with xz, and the costliest passages. The page colours every token by its cost,
    and shows what each predictor expected; it needs only a browser.
    """  # noqa: D301 - click needs the character \b
    sys.exit(each((file,), lambda name: _inspect(name, page, force, length, quiet, model or registry.DEFAULT)))


def _inspect(name: str, page: str | None, force: bool, length: int, quiet: bool, model: str) -> None:
    with open_source(name, archive=False) as source:
        if page is not None:  # before the work: a minute later would be late
            check_target(page, source=os.fstat(source.fileno()), force=force)
        data = source.read(length or -1)
    if not data:
        raise FileError(name, "is empty: there is nothing to inspect")
    from llmzip.coding.byte_coder import ByteCoder
    from llmzip.coding.token_coder import TokenCoder
    from llmzip.tools import inspection_report
    from llmzip.tools.inspection import inspect as look

    plain = ByteCoder(registry.initial_state_for_bytes()[0])
    shown = printable(name)
    with progress_bar(shown, len(data), shown=not quiet and on_terminal()) as progress:
        found = look(TokenCoder(registry.load(model)), plain, data, progress=progress)
    write(inspection_report.text_report(found, shown))
    if page is not None:
        with output_file(page, force=force) as stream:
            stream.write(inspection_report.html_report(found, shown).encode("utf-8", "replace"))
