"""The command ``llmzip train``: its options. The work is :mod:`llmzip.training.build`'s, imported when it is called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from llmzip.mixing.layout import MOST_DICTIONARY_BYTES
from llmzip.model.registry import SUFFIX

NATURAL = click.IntRange(min=1)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "-o", "--output", required=True, metavar="FILE", type=click.Path(path_type=Path), help="NAME.safetensors."
)
@click.option("--work", metavar="FOLDER", type=click.Path(path_type=Path), help="Working folder instead of NAME.train.")
@click.option(
    "--field",
    metavar="NAME",
    help="The field of JSON lines to train on (they are text otherwise), and the column of Parquet files (text).",
)
@click.option("--resume", is_flag=True, help="Continue an interrupted training.")
@click.option("-f", "--force", is_flag=True, help="Overwrite the output and start over.")
@click.option(
    "--from",
    "base",
    metavar="NAME|FILE",
    help="Personalise this model: its shape and tokens stay, and it will hold the text (see --dictionary).",
)
@click.option("--arch", type=click.Choice(["gated", "lstm", "gru", "transformer"]), help="Kind of network.")
@click.option("--size", type=click.Choice(["tiny", "small", "default", "large"]), help="0.5, 5, 11 or 49 million.")
@click.option("--width", type=click.IntRange(8, 2048), metavar="N", help="Channels of the network.")
@click.option("--layers", type=click.IntRange(1, 256), metavar="N", help="Layers of the network.")
@click.option("--hidden", type=click.IntRange(8, 65536), metavar="N", help="Channels inside a layer's MLP.")
@click.option("--vocab", type=click.IntRange(257, 65535), metavar="N", help="Largest number of tokens.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), metavar="N", help="Train for N minutes.")
@click.option("--steps", type=NATURAL, metavar="N", help="Train for N steps.")
@click.option("--lanes", type=NATURAL, metavar="N", help="Streams of text trained on at once.")
@click.option("--window", type=NATURAL, metavar="N", help="Tokens of each stream in a step.")
@click.option(
    "--compile",
    "fuse",
    is_flag=True,
    help="Fuse elementwise operations with torch.compile: about a quarter faster, needs a C++ compiler.",
)
@click.option(
    "--dictionary",
    type=click.IntRange(0, MOST_DICTIONARY_BYTES),
    metavar="BYTES",
    help="Keep up to BYTES of the text in the model, word for word, to find repeats in; 1048576 with --from, else 0.",
)
@click.option("--patience", type=NATURAL, default=6, metavar="N", help="Stop after N validations without progress.")
@click.option("--checkpoint-seconds", type=click.FloatRange(0), default=300, metavar="N", help="Time between saves.")
@click.option("--seed", type=click.IntRange(0), default=1, metavar="N", help="Seed of all randomness.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to train.")
@click.option(
    "-T", "--threads", type=click.IntRange(0), default=0, envvar="LLMZIP_THREADS", metavar="N", help="0: all."
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def train(**options: Any) -> None:
    """Train a model on text: files, folders with all files in them, and URLs of either.

    \b
    Examples:
      llmzip train letters/ -o letters.safetensors
      llmzip train --from default logs/ -o logs.safetensors --minutes 5
      llmzip train corpus/ -o big.safetensors --size large --minutes 600
      llmzip train corpus/ -o big.safetensors --size large --minutes 600 --resume
      llmzip train --field text posts.jsonl.gz -o posts.safetensors
      llmzip train enwiki-latest-pages-articles.xml.bz2 -o wiki.safetensors
      torchrun --nproc-per-node=4 -m llmzip train corpus/ -o b.safetensors

    Files are documents, or hold several separated by lines of the byte 0x1E only; articles of MediaWiki dumps, rows of
    Parquet files and, with --field, JSON lines are documents, too. Files ending in .gz, .bz2, .xz and .zst are
    decompressed. Parquet and .zst need the extra corpora, URLs the extra remote. Books of Project Gutenberg lose header
    and licence. Damaged and binary files are skipped.

    A share of the text is held out to measure on. The size is that of the network, in multiply-adds per token; without
    --size it depends on the amount of text, as do the tokens, the lanes and the time. The folder NAME.train beside the
    output keeps everything else: checkpoints, metrics.jsonl, loss.png. Ctrl-C writes the model as it is.
    """  # noqa: D301 - click needs the character \b
    output, base, shape = options["output"], options["base"], ("arch", "size", "width", "layers", "hidden", "vocab")
    if output.suffix != SUFFIX:
        raise click.UsageError(f"the output must be called NAME{SUFFIX}")
    if base and any(options[name] is not None for name in shape):
        raise click.UsageError(
            "--from keeps the model's shape: --arch, --size, --width, --layers, --hidden, --vocab are fixed"
        )
    if options["resume"] and options["force"]:
        raise click.UsageError("--resume continues a training and --force starts a new one: give one of them")
    if any((options[name] or 0) % 2 for name in ("width", "hidden")):
        raise click.UsageError("--width and --hidden must be even")

    def run(_: str) -> None:
        from llmzip.cli.runner import report
        from llmzip.threads import usable_cores
        from llmzip.training.build import build
        from llmzip.training.request import Request

        options["threads"] = options["threads"] or usable_cores()
        build(Request(**options), lambda fault: report(fault.filename, fault))

    from llmzip.cli.runner import each

    sys.exit(each((str(output),), run))
