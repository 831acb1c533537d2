"""The command that checks this machine."""

from __future__ import annotations

import sys

import click

from llmzip import models
from llmzip.cli.convert import MODEL_TO_USE
from llmzip.cli.report import each, write


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
        from llmzip.doctor import examine

        nonlocal sound
        for finding in examine(models.load(name)):
            sound &= finding.sound
            write(f"{'ok ' if finding.sound else 'BAD'}  {finding.subject}: {finding.text}\n")

    code = each((model or models.DEFAULT,), check)
    sys.exit(code or (0 if sound else 1))
