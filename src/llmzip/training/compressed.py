"""Files that are read as what they hold: .gz, .bz2, .xz and .zst decompressed on the way, others as they are.

Nothing is kept in memory but the decompressor's window.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from xml.parsers.expat import ExpatError

from llmzip.errors import FileError

ZSTD_WINDOW_LOG = 31  # the largest that zstd --long makes; published dumps have it
DAMAGE: tuple[type[Exception], ...] = (OSError, ValueError, zlib.error, lzma.LZMAError, ExpatError)
NO_ZSTD = 'is compressed with zstd, and backports.zstd is missing (pip install "llmzip[corpora]")'


def zstd_module(path: Path) -> Any:
    """Return Python's module for zstd, which came with 3.14, or its copy for older ones; raises FileError."""
    try:
        if sys.version_info >= (3, 14):
            import compression.zstd as zstd
        else:
            import backports.zstd as zstd
    except ImportError as error:
        raise FileError(str(path), NO_ZSTD) from error
    return zstd


def _open_zstd(path: Path) -> BinaryIO:
    zstd = zstd_module(path)
    return cast(BinaryIO, zstd.open(path, options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}))


OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}


def is_compressed(path: Path) -> bool:
    """Return whether a file is decompressed when it is opened."""
    return path.suffix.lower() in OPENERS


def content_name(path: Path) -> Path:
    """Return the name that a file has when it is decompressed."""
    return path.with_suffix("") if is_compressed(path) else path


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading what it holds; whatever is wrong with it is raised as FileError, also while it is read.

    Checksums stand at the end: only a reading to the end vouches for a compressed file.
    """
    try:
        with _open(path) as file:
            yield file
    except EOFError as error:
        raise FileError(str(path), "is cut short (fetch it again)") from error
    except (*DAMAGE, *_errors_of_zstd(path)) as error:
        raise _fault(path, error) from error


def _open(path: Path) -> BinaryIO:
    opener = OPENERS.get(path.suffix.lower())
    return cast(BinaryIO, opener(path)) if opener else path.open("rb")


def _errors_of_zstd(path: Path) -> tuple[type[Exception], ...]:
    return (zstd_module(path).ZstdError,) if path.suffix.lower() == ".zst" else ()


def _fault(path: Path, error: Exception) -> FileError:
    """Return what is wrong with a file in one line; errors of the system have a number, those of formats have not."""
    if isinstance(error, OSError) and error.errno is not None:
        return FileError(str(path), error.strerror or str(error))
    reason = str(error).strip().partition("\n")[0]
    return FileError(str(path), f"is damaged: {reason}")
