"""Corpora behind URLs, fetched through fsspec: s3://, gs://, https:// and whatever else it knows.

Training reads its text several times, and again to go on, so a file is fetched once, to the disk, under its own name.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from llmzip.errors import FileError

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::|://)")  # two letters or more: C:// is a drive
URLS = re.compile(r"\S+://\S+")
SECRETS = re.compile(r"(?<=://)[^/@\s]*@|[?#].*")  # names, passwords and signatures
WEB = ("http", "https")  # has no folders
NO_FSSPEC = 'is a URL, and fsspec is missing (pip install "llmzip[remote]")'


def is_url(name: str) -> bool:
    """Return whether a name is a URL; a file of that name is then ./NAME."""
    return URL.match(name) is not None


def without_secrets(name: str) -> str:
    """Return a URL without user, password and query; other names stay as they are."""
    return SECRETS.sub("", name) if is_url(name) else name


def local_paths(names: Sequence[str | Path], folder: Path, *, quiet: bool, anew: bool = False) -> list[Path]:
    """Return the local path of each name, after fetching what is behind URLs into `folder`.

    What is there already is fetched again only with `anew`. Shows progress on a terminal unless `quiet`. Raises
    FileError.
    """
    return [_fetched(str(name), folder, quiet, anew) if is_url(str(name)) else Path(name) for name in names]


def _fetched(url: str, folder: Path, quiet: bool, anew: bool) -> Path:
    """Return the local copy of a file, or of a folder with all files below it."""
    shown = without_secrets(url)
    try:
        from fsspec.callbacks import TqdmCallback
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise FileError(shown, NO_FSSPEC) from error
    own = folder / hashlib.sha256(url.encode()).hexdigest()[:8]  # of no other URL, and of nobody else
    if anew:
        shutil.rmtree(own, ignore_errors=True)
    try:
        parts = urlsplit(shown)
        target = own / ((PurePosixPath(parts.path).name or parts.netloc).lstrip(".") or "corpus")
        system, path = url_to_fs(url)
        for file, local in _files(system, path, target):
            if not local.exists():
                local.parent.mkdir(parents=True, exist_ok=True)
                partial = local.with_name(f".{local.name}.part")
                bar = {"desc": local.name, "unit": "B", "unit_scale": True, "disable": quiet or None}
                with TqdmCallback(bar, tqdm_cls=tqdm) as progress:
                    system.get_file(file, str(partial), callback=progress)
                partial.replace(local)
    except FileError:
        raise
    except Exception as error:  # every kind of file system has errors of its own
        raise FileError(shown, URLS.sub(lambda match: without_secrets(match[0]), _reason(error))) from error
    return target


def _files(system: Any, path: str, target: Path) -> list[tuple[str, Path]]:
    """Return the files behind a URL, each with the local path that it gets."""
    web = any(protocol in WEB for protocol in _protocols(system))
    if web or not system.isdir(path):
        return [(path, target)]
    found = []
    for file in sorted(system.find(path)):
        below = PurePosixPath(file.removeprefix(path).lstrip("/"))
        if ".." in below.parts:  # a key of an object store may be anything
            raise FileError(file, "has a name that leads out of its folder")
        found.append((file, target / below))
    if not found:
        raise FileError(path, "holds no files (give files of text, or folders with them)")
    return found


def _protocols(system: Any) -> Sequence[str]:
    return (system.protocol,) if isinstance(system.protocol, str) else system.protocol


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"cannot be fetched: {error} (pip install it)"
    if isinstance(error, FileNotFoundError):
        return "No such file or directory"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be fetched: {os.strerror(error.errno)}"
    text = str(error).strip().partition("\n")[0]
    return f"cannot be fetched: {text or type(error).__name__}"
