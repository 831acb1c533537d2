"""The command that checks this machine."""

from __future__ import annotations

import sys

import click

from llmzip.cli.options import MODEL_TO_USE
from llmzip.cli.runner import each, write
from llmzip.model import registry


@click.command()
@MODEL_TO_USE
def doctor(model: str | None) -> None:
    """Check that this machine computes what all others do.

    \b
    Examples:
      llmzip doctor
      llmzip doctor -m my.safetensors

    A sample is compressed and decompressed in every way that this machine could do it, with one
    thread and with all cores: the bytes must be the same. Tells the speed of each way, too. The
    exit code is 1 if anything is not as it should be.
    """  # noqa: D301 - click needs the character \b
    sound = True

    def check(name: str) -> None:
        from llmzip.tools.doctor import examine

        nonlocal sound
        for finding in examine(registry.load(name)):
            sound &= finding.sound
            write(f"{'ok ' if finding.sound else 'BAD'}  {finding.subject}: {finding.text}\n")

    code = each((model or registry.DEFAULT,), check)
    sys.exit(code or (0 if sound else 1))
