"""The command that decompresses random bits."""

from __future__ import annotations

import codecs
import sys
from typing import Any

import click

from llmzip.atomic_output import standard_output
from llmzip.cli.options import MODEL_TO_USE
from llmzip.cli.runner import each
from llmzip.model import registry


@click.command()
@click.option("-p", "--prompt", metavar="TEXT", default="", help="Go on from this text.")
@click.option(
    "-n", "--length", metavar="N", type=click.IntRange(1, 1 << 20), default=400, show_default=True, help="Bytes to add."
)
@click.option(
    "--temperature",
    metavar="X",
    type=click.FloatRange(0.05, 20),
    default=1.0,
    show_default=True,
    help="Below 1: likelier words.",
)
@click.option("--top-k", metavar="N", type=click.IntRange(0), default=0, help="Take the N likeliest tokens only.")
@click.option("--seed", metavar="N", type=int, help="Write the same text again.")
@click.option("--mixed", is_flag=True, help="Decode exactly as archives are decoded.")
@MODEL_TO_USE
def generate(prompt: str, model: str | None, **options: Any) -> None:
    """Write text by decompressing random bits.

    \b
    Examples:
      llmzip generate --prompt "The cat"
      llmzip generate -n 2000 --temperature 0.7 --seed 1
      llmzip generate --mixed --prompt "The cat"

    A compressor's model says how likely every text is; fed with random bits, its decoder writes texts
    just as often. This shows what the language model has learned, and no more than that: it is small,
    it knows nothing, and what it writes means nothing. With --mixed, what has been written is mixed in,
    as when archives are decoded; it learns from its own output, and soon repeats itself.
    """  # noqa: D301 - click needs the character \b
    if options["mixed"] and (options["top_k"] or options["temperature"] != 1):
        raise click.UsageError("--mixed goes with neither --temperature nor --top-k")

    def write(name: str) -> None:
        from llmzip.tools.generate import generate as tokens

        loaded = registry.load(name)
        text = codecs.getincrementaldecoder("utf-8")("replace")  # characters may be cut into tokens
        with standard_output() as stream:
            stream.write(prompt.encode("utf-8", "replace"))
            stream.flush()
            given = prompt.encode("utf-8", "surrogateescape")
            for token in tokens(loaded, given, **options):
                stream.write(text.decode(token).encode())
                stream.flush()
            if sys.stdout.isatty():
                stream.write(b"\n")

    sys.exit(each((model or registry.DEFAULT,), write))
