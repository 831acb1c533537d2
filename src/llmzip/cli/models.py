"""The commands about models: what there is, what is known about one, whether it is sound, where it lies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from llmzip.cli.listing import aligned
from llmzip.cli.runner import each, write
from llmzip.errors import ModelError
from llmzip.model import registry

NAME = click.argument("name", metavar="[NAME|FILE]", default=registry.DEFAULT)


@click.group()
def models() -> None:
    """List models, show their cards, verify them.

    \b
    Examples:
      llmzip models list
      llmzip models card default
      llmzip models verify my.safetensors
      llmzip compress -m my.safetensors book.txt

    The shipped models are inside the package; others are found in the folders of LLMZIP_MODEL_PATH.
    """  # noqa: D301 - click needs the character \b


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON array, one object per model.")
def list_(as_json: bool) -> None:
    """Show the models that can be given by name.

    \b
    Examples:
      llmzip models list
      LLMZIP_MODEL_PATH=~/models llmzip models list --json

    The identity is what archives name a model by; shipped models have a number as well.
    """  # noqa: D301
    rows = []
    for name, path in registry.available().items():
        digest = registry.digest_of(path)
        number = registry.number_of(digest)
        size = path.stat().st_size
        rows.append({"name": name, "number": number, "identity": digest[:8].hex(), "bytes": size, "path": str(path)})
    if as_json:
        text = json.dumps(rows, indent=2) + "\n"
    else:
        lines = [["-" if value is None else value for value in row.values()] for row in rows]
        text = aligned([["name", "number", "identity", "bytes", "path"], *lines], "lrlrl")
    sys.exit(write(text))


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

    A shipped model must be the one that archives name; every model must be complete, and decompress
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
    registered = dict(registry.SHIPPED.values())
    if path.parent == registry.shipped_folder() and registered.get(path.stem) not in (None, model.digest.hex()):
        raise ModelError("is not the shipped model of that name (install llmzip again)")
    replay(model)
    return f"sound ({model.digest[:8].hex()}, {model.tokenizer.size} tokens, {path.stat().st_size} bytes)"
