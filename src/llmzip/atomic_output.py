"""Write output files that appear under their names only when they are complete.

The data goes to a temporary file in the same folder, which takes the name after everything has
reached the disk; on any failure it is removed, and what was there before stays.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, BinaryIO, cast

from llmzip.errors import FileError

# What os.link says where a file system has no hard links.
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)

_unfinished: set[str] = set()  # paths of temporary files


def remove_unfinished() -> None:
    """Remove all temporary files, before the process ends without unwinding its stack."""
    for path in list(_unfinished):
        _remove(path)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Make errors of the system name the output, not a temporary file or nothing."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = path, None
        raise


class _Raw(io.FileIO):
    """A file whose errors while writing name the output."""

    output = ""

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        with _naming(self.output):
            return super().write(data)


def _writer(file: str | int, mode: str, output: str, permissions: int = 0o666) -> BinaryIO:
    """Open a path, or a descriptor that stays open, for writing."""
    if isinstance(file, int):
        raw = _Raw(file, mode, closefd=False)
    else:
        raw = _Raw(file, mode, opener=lambda path, flags: os.open(path, flags, permissions))
    raw.output = output
    return cast(BinaryIO, io.BufferedWriter(raw))


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """Open the standard output for bytes; what was written is flushed at the end."""
    if sys.stdout is None:
        raise FileError("(stdout)", "is closed")
    file = _writer(1, "wb", "(stdout)")
    try:
        yield file
        file.flush()
    finally:
        # After a failure the rest cannot be written either; the first error is the one to report.
        with suppress(OSError):
            file.close()


def check_target(path: str, *, source: os.stat_result | None, force: bool) -> bool:
    """Return whether `path` is, or will be, a regular file; raises FileError if it must not.

    `source` is the status of the file that is read; `force` allows to overwrite another one.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path) and not force:
            raise FileError(path, "is a link to nothing (use -f to create what it names)") from None
        return True
    if stat.S_ISDIR(status.st_mode):
        raise FileError(path, "is a directory (give a file name)")
    if not stat.S_ISREG(status.st_mode):
        return False
    if source and os.path.samestat(source, status):
        raise FileError(path, "is the input file: it cannot be the output too (choose another -o)")
    if not force:
        raise FileError(path, "exists already (use -f to overwrite it)")
    return True


@contextmanager
def output_file(path: str, *, source: os.stat_result | None = None, force: bool = False) -> Iterator[BinaryIO]:
    """Open `path` for writing; it gets its name at the end, if no exception is raised.

    Permissions, owner and times are those of `source`, if it is a regular file. Links are followed;
    devices and pipes are written to directly. Raises FileError as `check_target`.
    """
    if not check_target(path, source=source, force=force):
        with _writer(path, "wb", path) as file:
            yield file
        return
    target = os.path.realpath(path)
    copied = source if source and stat.S_ISREG(source.st_mode) else None
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".llmzip-{os.urandom(8).hex()}.tmp")
    with ExitStack() as cleanup:
        _unfinished.add(temporary)
        cleanup.callback(_remove, temporary)
        with _naming(path):
            # Until it has the permissions of the source, no one else may read it.
            file = _writer(temporary, "xb", path, 0o600 if copied else 0o666)
        cleanup.callback(_close, file)
        yield file
        with _naming(path):
            file.flush()
            if copied:
                _copy_status(temporary, copied)
            os.fsync(file.fileno())
            file.close()
            _take_name(temporary, target, force=force)
    with suppress(OSError):  # some file systems cannot synchronise folders
        _sync_folder(folder)


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
    _unfinished.discard(path)


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # what is in its buffer may not fit on the disk
        file.close()


def _copy_status(path: str, source: os.stat_result) -> None:
    """Give a file the permissions and times of `source`, and its owner where that is allowed."""
    permissions = source.st_mode & 0o777
    try:
        os.chown(path, source.st_uid, source.st_gid)
    except OSError:
        # The group may be another one now: it gets no more than all others have.
        permissions &= ~0o070 | (permissions & 0o007) << 3
    os.chmod(path, permissions)
    os.utime(path, ns=(source.st_atime_ns, source.st_mtime_ns))


def _take_name(temporary: str, target: str, *, force: bool) -> None:
    """Give a complete file its name; without `force` only if no other file has it."""
    if force:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # Claim the name with an empty file, as it cannot be taken and tested in one step.
        with open(target, "xb"):
            pass
        try:
            os.replace(temporary, target)
        except BaseException:
            os.unlink(target)
            raise


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
