"""URLs: what is behind them is read, listed and written through fsspec: s3://, gs://, https:// and what else it knows.

What is written is complete or not there. It is collected in a temporary file on this machine; then an object store gets
it as an object, which appears when it is complete, and any other file system as a temporary file, which is renamed.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from llmzip.atomic_output import DESCRIPTORS, output_file
from llmzip.errors import FileError, LlmzipError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::|://)")  # two letters or more: C:// is a drive
URLS = re.compile(r"\S+://\S+")
SECRETS = re.compile(r"(?<=://)[^/@\s]*@|[?#].*")  # names, passwords and signatures
MAGIC = re.compile(r"[*?\[]")  # what makes a name a pattern
WEB = {"http", "https"}  # has no folders, and is only read from
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "r2"}
NO_FSSPEC = 'is a URL, and fsspec is missing (pip install "llmzip[remote]")'
BLOCK = 1 << 22  # bytes that are read ahead
HEAD = 1 << 10  # bytes that are read at once where nothing is read ahead: the head of any frame


class UnreachableError(FileError):
    """What is behind a URL cannot be reached, now or at all."""


def is_url(name: str) -> bool:
    """Return whether a name is a URL; a file of that name is then ./NAME."""
    return URL.match(name) is not None


def without_secrets(name: str) -> str:
    """Return a URL without user, password and query; other names stay as they are."""
    return SECRETS.sub("", name) if is_url(name) else name


@contextmanager
def naming(url: str) -> Iterator[None]:
    """Make every error of a file system a FileError that names the URL, without its secrets."""
    try:
        yield
    except LlmzipError:
        raise
    except Exception as error:  # every kind of file system has errors of its own
        if isinstance(error, FileNotFoundError):
            raise FileError(without_secrets(url), "No such file or directory") from error
        reason = URLS.sub(lambda match: without_secrets(match[0]), _reason(error))
        raise UnreachableError(without_secrets(url), f"cannot be reached: {reason}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"{error} (pip install it)"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return str(error).strip().partition("\n")[0] or type(error).__name__


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it; raises FileError if it cannot be used."""
    with naming(url):
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise FileError(without_secrets(url), NO_FSSPEC) from error
        # What other processes have written since must be seen.
        system, path = url_to_fs(url, use_listings_cache=False)
    return system, path


def protocols(system: Any) -> set[str]:
    """Return the schemes of the URLs of a file system."""
    return {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)


@dataclass(frozen=True)
class Status:
    """What is known of a file: its size in bytes, and when it was modified, in seconds since 1970; None if unknown."""

    size: int | None
    modified: float | None


def status(name: str) -> Status | None:
    """Return the status of a URL or a local file, None if there is none; raises FileError or OSError."""
    if not is_url(name):
        try:
            local = os.stat(name)
        except FileNotFoundError:
            return None
        return Status(local.st_size, local.st_mtime)
    system, path = file_system(name)
    with naming(name):
        try:
            info = system.info(path)
        except FileNotFoundError:
            return None
        modified = info.get("LastModified")  # S3's, which saves another request
        with suppress(NotImplementedError, KeyError):
            modified = modified or system.modified(path)
    return Status(info.get("size"), modified.timestamp() if modified else None)


class _Source(io.RawIOBase):
    """A file behind a URL, whose errors name it."""

    def __init__(self, file: Any, url: str):
        self._file, self._url, self.name = file, url, without_secrets(url)
        try:
            file.seek(0, io.SEEK_END)
            file.seek(0)
            self._seekable = True
        except (OSError, ValueError, TypeError):  # a web server that sends whole files only
            self._seekable = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with naming(self._url):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        with naming(self._url):
            data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def open_url(url: str, *, ahead: bool = True) -> BinaryIO:
    """Open a URL for reading; what comes `ahead` is fetched, too, unless only parts here and there are wanted.

    Raises FileError.
    """
    system, path = file_system(url)
    with naming(url):
        file = system.open(path, "rb", block_size=BLOCK, cache_type="readahead" if ahead else "none")
    return cast(BinaryIO, io.BufferedReader(_Source(file, url), io.DEFAULT_BUFFER_SIZE if ahead else HEAD))


def open_file(name: str, *, ahead: bool = True) -> BinaryIO:
    """Open a URL or a local file for reading."""
    return open_url(name, ahead=ahead) if is_url(name) else open(name, "rb")


def read_range(name: str, start: int, size: int) -> bytes:
    """Return `size` bytes of a URL or a local file; raises FileError if there are fewer."""
    if is_url(name):
        system, path = file_system(name)
        with naming(name):
            data: bytes = system.cat_file(path, start=start, end=start + size) if size else b""
    else:
        with open(name, "rb") as file:
            file.seek(start)
            data = file.read(size)
    if len(data) != size:
        raise FileError(without_secrets(name), "has become shorter while it was read")
    return data


@contextmanager
def new_file(name: str, *, source: os.stat_result | None = None, force: bool = False) -> Iterator[BinaryIO]:
    """Open a URL or a local file for writing, which is there, complete, at the end; as `new_object` or `output_file`.

    A local file gets the permissions and times of `source`.
    """
    with new_object(name, force=force) if is_url(name) else output_file(name, source=source, force=force) as file:
        yield file


@contextmanager
def new_object(url: str, *, force: bool = False) -> Iterator[BinaryIO]:
    """Yield a local file; what is in it is behind the URL at the end, unless an exception is raised.

    Raises FileError if there is something already, except with `force`, and for what cannot be written to.
    """
    system, path = file_system(url)
    _check_new(system, path, url, force)
    # Nothing is left over if the process is killed: where the system can do so, the file has no name.
    unnamed = os.path.isdir(DESCRIPTORS)
    new = tempfile.TemporaryFile if unnamed else tempfile.NamedTemporaryFile
    with new(prefix="llmzip-") as file:
        yield cast(BinaryIO, file)
        file.flush()
        with naming(url):
            _check_new(system, path, url, force)
            _upload(system, f"{DESCRIPTORS}/{file.fileno()}" if unnamed else file.name, path)


def _check_new(system: Any, path: str, url: str, force: bool) -> None:
    if protocols(system) & WEB:
        raise FileError(without_secrets(url), "cannot be written to (give a file, or a URL like s3://BUCKET/NAME)")
    with naming(url):
        if not force and system.exists(path):
            raise FileError(without_secrets(url), "exists already (use -f to overwrite it)")


def _upload(system: Any, local: str, path: str) -> None:
    if protocols(system) & OBJECT_STORES:
        system.put_file(local, path)
        return
    parent, _, _ = path.rpartition("/")
    temporary = f"{parent}/.llmzip-{os.urandom(8).hex()}.tmp"
    system.makedirs(parent, exist_ok=True)
    try:
        system.put_file(local, temporary)
        system.mv(temporary, path)
    except BaseException:
        with suppress(Exception):
            system.rm_file(temporary)
        raise


@dataclass(frozen=True)
class Found:
    """A file that was found: its URL, its path below the folder that was searched, and its size in bytes."""

    url: str
    below: str
    size: int | None


def is_folder(url: str) -> bool:
    """Return whether a URL, of anything but the web, is that of a folder."""
    system, path = file_system(url)
    with naming(url):
        return not protocols(system) & WEB and bool(system.isdir(path))


def find(url: str) -> list[Found]:
    """Return the files in and below a folder, or those that a pattern with *, ** or ? fits, sorted; raises FileError.

    The folder of a pattern is what comes before the first part with one of these characters.
    """
    system, path = file_system(url)
    pattern = MAGIC.search(path)
    base = path[: path.rfind("/", 0, pattern.start()) + 1] if pattern else path
    shown = without_secrets(url)
    # Users and hosts are not part of the paths of all file systems.
    if not url.rstrip("/").endswith(path.strip("/")):
        raise FileError(shown, "cannot be listed (name its files)")
    start = url.rstrip("/").removesuffix(path.strip("/"))
    with naming(url):
        details = system.glob(path, detail=True) if pattern else system.find(path, detail=True)
    found = []
    for name, info in sorted(details.items()):
        if info.get("type", "file") == "file":
            below = name.removeprefix(base).lstrip("/")
            check_inside(below, shown)
            found.append(Found(start + name.lstrip("/"), below, info.get("size")))
    return found


def check_inside(below: str, name: str) -> None:
    """Raise FileError for a path that leads out of the folder that it is below: an object's key may be anything."""
    if ".." in PurePosixPath(below).parts:
        raise FileError(name, "has a name that leads out of its folder")


def has_magic(url: str) -> bool:
    """Return whether a URL is a pattern; the query of a web address is none."""
    return not any(url.startswith(f"{scheme}:") for scheme in WEB) and MAGIC.search(url) is not None
