"""Write docs/cli.md and docs/llmzip.1, the man page, from the help texts of the command line.

    python scripts/make_cli_docs.py

A test fails when they are not current.
"""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

import click

from llmzip._version import __version__
from llmzip.cli import cli

DOCS = Path(__file__).parents[1] / "docs"


def contexts() -> list[click.Context]:
    """Return the command line and all its commands, in the order of the help."""
    found = [click.Context(cli, info_name="llmzip", **cli.context_settings, max_content_width=100, terminal_width=100)]
    for context in found:
        if isinstance(context.command, click.Group):
            for name in context.command.list_commands(context):
                command = context.command.get_command(context, name)
                found.append(click.Context(command, info_name=name, parent=context, terminal_width=100))
    return found


def reference() -> str:
    """Return docs/cli.md."""
    parts = ["# Command line\n", "What `--help` says, written by `scripts/make_cli_docs.py`.\n"]
    for context in contexts():
        parts.append(f"## {context.command_path}\n\n```text\n{context.get_help()}\n```\n")
    return "\n".join(parts)


def _roff(text: str) -> str:
    """Return plain text as roff: nothing in it is a command."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\n".join("\\&" + line if line.startswith((".", "\\(aq")) else line for line in escaped.split("\n"))


def _description(command: click.Command) -> list[str]:
    """Return the help text as roff; paragraphs after a backspace character keep their lines."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):
            lines += [".PP", ".nf", _roff(paragraph.removeprefix("\b\n")), ".fi"]
        else:
            lines += [".PP", _roff(paragraph)]
    return lines


def man_page() -> str:
    """Return docs/llmzip.1: one page for all commands."""
    first, *others = contexts()
    lines = [
        f'.TH LLMZIP 1 "" "llmzip {__version__}" "User Commands"',
        ".SH NAME",
        "llmzip \\- " + _roff(first.command.get_short_help_str(80).rstrip(".").lower()),
        ".SH SYNOPSIS",
        ".B llmzip",
        _roff(" ".join(first.command.collect_usage_pieces(first))),
        ".SH DESCRIPTION",
        *_description(first.command),
        ".SH COMMANDS",
    ]
    for context in others:
        usage = " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
        lines += [f'.SS "{_roff(usage)}"', *_description(context.command)]
        for parameter in context.command.get_params(context):
            record = parameter.get_help_record(context)
            if isinstance(parameter, click.Option) and record and "--help" not in parameter.opts:
                lines += [".TP", f"\\fB{_roff(record[0])}\\fR", _roff(record[1])]
    lines += [".SH SEE ALSO", ".BR tar (1),", ".BR xz (1),", ".BR zstd (1)"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    (DOCS / "cli.md").write_text(reference())
    (DOCS / "llmzip.1").write_text(man_page())
