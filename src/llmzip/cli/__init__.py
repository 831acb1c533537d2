"""The command line: parse, call, report. What is done with files is in conversion.py.

Each module of this package holds a group of commands; it is imported when one of them is called, or described.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module

import click

from llmzip._version import __version__
from llmzip.cli.gzip_style import translated
from llmzip.cli.runner import report
from llmzip.cli.signals import clean_up_on_signals

# Command -> module and function in it.
COMMANDS = {
    "compress": ("llmzip.cli.convert", "compress"),
    "decompress": ("llmzip.cli.convert", "decompress"),
    "test": ("llmzip.cli.convert", "test"),
    "list": ("llmzip.cli.listing", "list_"),
    "train": ("llmzip.cli.train", "train"),
    "bench": ("llmzip.cli.bench", "bench"),
    "inspect": ("llmzip.cli.inspect", "inspect"),
    "generate": ("llmzip.cli.generate", "generate"),
    "models": ("llmzip.cli.models", "models"),
    "doctor": ("llmzip.cli.doctor", "doctor"),
}


class _Commands(click.Group):
    """The group of commands, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as in the base class
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        module, function = COMMANDS[name]
        command: click.Command = getattr(import_module(module), function)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # A shell that completes asks for what may follow, not for what it stands for.
        return super().parse_args(ctx, args if ctx.resilient_parsing else translated(args, COMMANDS))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="llmzip", message="%(prog)s %(version)s")
def cli() -> None:
    """Compress text without loss with a small language model.

    \b
    Examples:
      llmzip compress book.txt          write book.txt.lz
      llmzip decompress book.txt.lz     write book.txt
      llmzip list *.lz                  show sizes and models
      tar c docs | llmzip compress > docs.tar.lz

    As with gzip and zstd, a command can be left out: llmzip -d is decompress, -t is test, -l is list, and without
    them it is compress. So tar -I llmzip -cf docs.tar.lz docs works, and tar -I llmzip -xf docs.tar.lz.

    Without a file, or with -, compress, decompress, test and list read standard input; the first two
    write standard output then. The exit code is 0 for success, 1 if a file failed, 2 for wrong usage.

    \b
    Environment:
      LLMZIP_MODEL        default for -m of compress, inspect, generate and doctor
      LLMZIP_THREADS      default for -T
      LLMZIP_MODEL_PATH   folders to search for models, as in PATH
      LLMZIP_DEBUG=1      show a traceback with each error

    \b
    Completion of commands and options with the tab key, in ~/.bashrc or
    ~/.zshrc (bash_source or zsh_source) or config.fish (fish_source | source):
      eval "$(_LLMZIP_COMPLETE=bash_source llmzip)"
    """  # noqa: D301 - click needs the character \b


def main() -> None:
    """Run the command line."""
    # A file opened under the number of a closed standard stream would be taken for it.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    clean_up_on_signals()
    try:
        cli(prog_name="llmzip")
    except OSError as error:  # of the help, on a full disk: commands report theirs themselves
        report("(stdout)", error)
        with suppress(OSError):  # what is left in the buffer cannot be written either
            sys.stdout.close()
        sys.exit(1)
