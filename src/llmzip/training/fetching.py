"""Corpora behind URLs, fetched to the disk under their own names: training reads its text several times."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tqdm import tqdm

from llmzip.api import remote
from llmzip.errors import FileError


def local_paths(names: Sequence[str | Path], folder: Path, *, quiet: bool, anew: bool = False) -> list[Path]:
    """Return the local path of each name, after fetching what is behind URLs into `folder`.

    What is there already is fetched again only with `anew`. Shows progress on a terminal unless `quiet`. Raises
    FileError.
    """
    return [_fetched(str(name), folder, quiet, anew) if remote.is_url(str(name)) else Path(name) for name in names]


def _fetched(url: str, folder: Path, quiet: bool, anew: bool) -> Path:
    """Return the local copy of a file, or of a folder with all files below it."""
    own = folder / hashlib.sha256(url.encode()).hexdigest()[:8]  # of no other URL, and of nobody else
    if anew:
        shutil.rmtree(own, ignore_errors=True)
    system, path = remote.file_system(url)
    with remote.naming(url):
        from fsspec.callbacks import TqdmCallback

        parts = urlsplit(remote.without_secrets(url))
        target = own / ((PurePosixPath(parts.path).name or parts.netloc).lstrip(".") or "corpus")
        for file, local in _files(url, path, target):
            if not local.exists():
                local.parent.mkdir(parents=True, exist_ok=True)
                partial = local.with_name(f".{local.name}.part")
                bar = {"desc": local.name, "unit": "B", "unit_scale": True, "disable": quiet or None}
                with TqdmCallback(bar, tqdm_cls=tqdm) as progress:
                    system.get_file(file, str(partial), callback=progress)
                partial.replace(local)
    return target


def _files(url: str, path: str, target: Path) -> list[tuple[str, Path]]:
    """Return the files behind a URL, each with the local path that it gets."""
    if not remote.is_folder(url):
        return [(path, target)]
    found = [(f"{path.rstrip('/')}/{file.below}", target / file.below) for file in remote.find(url)]
    if not found:
        raise FileError(remote.without_secrets(url), "holds no files (give files of text, or folders with them)")
    return found
