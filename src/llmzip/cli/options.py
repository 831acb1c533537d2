"""The options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from llmzip.batch.shard import Shard
from llmzip.model import registry

Command = Callable[..., None]


def with_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
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
JOBS = click.option(
    "-j",
    "--jobs",
    metavar="N",
    type=click.IntRange(0),
    default=1,
    help="Work on N files at once, 0 for one per core.",
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


class Bytes(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on
    """A number of bytes, with K, M or G for powers of 1024."""

    name = "size"

    def __init__(self, least: int = 0, most: int | None = None):
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes that the user wrote."""
        match = re.fullmatch(r"(\d+) ?([KMG]?)(i?B)?", str(value), re.IGNORECASE)
        if not match:
            self.fail(f"{value!r} is not a size like 500M or 2G.", param, ctx)
        size = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]
        if size < self._least or (self._most is not None and size > self._most):
            self.fail(
                f"{value!r} is not in the range of {self._least >> 20}M to {(self._most or 0) >> 20}M.", param, ctx
            )
        return size


MEMORY = click.option(
    "-M",
    "--memlimit",
    metavar="SIZE",
    type=Bytes(),
    help="Refuse what takes more memory, like 500M or 2G; llmzip list shows how much.",
)


class ShardType(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on
    """A part of many files, as i/n."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        """Return the shard that the user wrote."""
        try:
            return value if isinstance(value, Shard) else Shard.parse(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


FILES_FROM = click.option(
    "--files-from", metavar="LIST", help="Take the names in LIST, too: one a line, or each ended by a zero byte."
)
REPORT = click.option("--json", "as_json", is_flag=True, help="Write a report as JSON: files, bytes, ratio, failures.")
CLUSTER = click.option(
    "--cluster", metavar="ADDRESS|local", help="Let a dask cluster do the work (needs the extra cluster)."
)
