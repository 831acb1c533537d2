"""Fetch and import published models: what ``llmzip models get`` and ``import`` do."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmzip.atomic_output import check_target, output_file
from llmzip.cli.progress_bar import on_terminal
from llmzip.errors import ModelError
from llmzip.model import registry

if TYPE_CHECKING:
    from llmzip.pretrained.source import Source

DOWNLOADS = "downloads"  # in the user's folder


def import_model(source: Path, output: Path | None, texts: tuple[Path, ...], *, force: bool, quiet: bool) -> None:
    """Import the model in a file or folder; raises LlmzipError or OSError."""
    from llmzip.model.file import parse
    from llmzip.pretrained import build, measure
    from llmzip.threads import usable_cores

    opened = build.read(source)
    target = output or _folder() / (_name(opened, source) + registry.SUFFIX)
    check_target(str(target), source=None, force=force)
    data = _built(opened, quiet)
    measured = measure.table(opened, parse(data), list(texts), usable_cores())
    _write(target, data, build.card(opened, source.name, data, measured), force)
    _say(f"{target}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}", quiet)


def get_model(name: str, *, force: bool, quiet: bool) -> None:
    """Fetch and import a published model; raises LlmzipError or OSError."""
    from llmzip.pretrained import build
    from llmzip.pretrained.published import PUBLISHED, discard, fetch

    name = registry.ALIASES.get(name, name)
    if name not in PUBLISHED:
        raise ModelError(f"is none of the published models that llmzip knows ({', '.join(PUBLISHED)})")
    digest = next(digest for known, digest in registry.PUBLISHED.values() if known == name)
    target = _folder() / (name + registry.SUFFIX)
    if target.is_file() and registry.digest_of(target).hex() == digest:
        _say(f"{name} is here already: {target}", quiet)
        return
    check_target(str(target), source=None, force=force)
    published, downloads = PUBLISHED[name], _folder() / DOWNLOADS
    source = build.read(fetch(published, downloads, lambda text: _say(text, quiet)))
    data = _built(source, quiet)
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise ModelError(
            f"its import gives {found[:16]}, not {digest[:16]}: this machine computes differently (report it)"
        )
    card = (registry.shipped_folder() / (name + ".md")).read_text(encoding="utf-8")
    _write(target, data, card, force)
    discard(published, downloads)
    _say(f"{name}: {target}, {len(data)} bytes", quiet)


def _folder() -> Path:
    folder = registry.user_folder()
    if folder is None:
        raise ModelError("there is no home folder to keep models in (set XDG_DATA_HOME)")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _name(source: Source, path: Path) -> str:
    """Return a file's name for a model: its title in small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", (source.title or path.stem).lower()).strip("-.") or "model"


def _built(source: Source, quiet: bool) -> bytes:
    """Return the model file of a published model, with a bar for the layers."""
    from llmzip.pretrained.build import build

    if quiet or not on_terminal():
        return build(source)
    from tqdm import tqdm

    with tqdm(total=source.layers, desc="importing", unit=" layers", leave=False) as bar:
        return build(source, bar.update)


def _write(target: Path, data: bytes, card: str, force: bool) -> None:
    with output_file(str(target), force=force) as out:
        out.write(data)
    with output_file(str(target.with_suffix(".md")), force=True) as out:
        out.write(card.encode())


def _say(text: str, quiet: bool) -> None:
    if not quiet and sys.stderr is not None:
        click.echo(f"llmzip: {text}", err=True)
