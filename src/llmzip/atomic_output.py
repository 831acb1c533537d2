"""Write output files that appear under their names only when they are complete.

The data goes to a file without a name in the same folder, or a temporary one where the system has no such files. It
takes the name after everything has reached the disk; on any failure it is gone, and what was there before stays.
Once file and folder are open, everything is done through their descriptors: a path may name something else by then.
"""

from __future__ import annotations

import ctypes
import errno
import io
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any, BinaryIO, cast

from llmzip.errors import FileError

# What the system says where it cannot do a thing at all, whatever the file.
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
NO_LINKS = (*UNSUPPORTED, errno.EPERM, errno.EMLINK, errno.EXDEV)
NO_UNNAMED_FILES = (*UNSUPPORTED, errno.EISDIR, errno.ENOENT)  # the latter two are what old kernels say
RENAME_NOREPLACE = 1
DESCRIPTORS = "/proc/self/fd"
MOST_LINKS = 40  # as Linux follows

_unfinished: set[tuple[int, str]] = set()  # files to remove: an open folder and a name in it


def remove_unfinished() -> None:
    """Remove all temporary files, before the process ends without unwinding its stack."""
    for folder, name in list(_unfinished):
        _remove(folder, name)


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


def _writer(descriptor: int, output: str) -> BinaryIO:
    """Return a writer to a descriptor, which stays open when the writer is closed."""
    raw = _Raw(descriptor, "wb", closefd=False)
    raw.output = output
    return cast(BinaryIO, io.BufferedWriter(raw))


@contextmanager
def _open_descriptor(descriptor: int, output: str) -> Iterator[BinaryIO]:
    """Write to what is open already; what was written is flushed at the end."""
    file = _writer(descriptor, output)
    try:
        yield file
        file.flush()
    finally:
        # After a failure the rest cannot be written either; the first error is the one to report.
        with suppress(OSError):
            file.close()


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """Open the standard output for bytes."""
    if sys.stdout is None:
        raise FileError("(stdout)", "is closed")
    with _open_descriptor(1, "(stdout)") as file:
        yield file


def descriptor_of(path: str) -> int | None:
    """Return the descriptor of this process that `path` stands for, directly or by links; None for any other path.

    /dev/stdout and /dev/fd/3 are such paths: what is behind them may be a regular file, and must not be replaced.
    """
    for _ in range(MOST_LINKS):
        folder, name = os.path.split(path)
        try:
            folder = os.path.realpath(folder or ".")
        except OSError:  # the working folder has been deleted
            return None
        if name.isdecimal() and re.fullmatch(rf"/dev/fd|/proc/{os.getpid()}/(task/\d+/)?fd", folder):
            return int(name)
        path = os.path.join(folder, name)
        try:
            path = os.path.join(folder, os.readlink(path))
        except OSError:
            return None
    return None


def check_target(path: str, *, source: os.stat_result | None, force: bool) -> bool:
    """Return whether `path` is, or will be, a regular file to replace; raises FileError if it must not.

    `source` is the status of the file that is read; `force` allows to overwrite another one.
    """
    descriptor = descriptor_of(path)
    try:
        status = os.stat(path) if descriptor is None else os.fstat(descriptor)
    except FileNotFoundError:
        if os.path.islink(path) and not force:
            raise FileError(path, "is a link to nothing (use -f to create what it names)") from None
        return True
    except OSError as error:
        error.filename = path
        raise
    if stat.S_ISDIR(status.st_mode):
        raise FileError(path, "is a directory (give a file name)")
    if not stat.S_ISREG(status.st_mode):
        return False
    if source and os.path.samestat(source, status):
        raise FileError(path, "is the input file: it cannot be the output too (choose another -o)")
    if descriptor is not None:
        return False
    if not force:
        raise FileError(path, "exists already (use -f to overwrite it)")
    return True


@contextmanager
def output_file(path: str, *, source: os.stat_result | None = None, force: bool = False) -> Iterator[BinaryIO]:
    """Open `path` for writing; it gets its name at the end, if no exception is raised.

    Permissions, owner and times are those of `source`, if it is a regular file. Links are followed; devices, pipes and
    descriptors that are open already are written to directly. Raises FileError as `check_target`.
    """
    if not check_target(path, source=source, force=force):
        with _open_special(path) as file:
            yield file
        return
    copied = source if source and stat.S_ISREG(source.st_mode) else None
    with ExitStack() as cleanup:
        # Until it has the permissions of the source, no one else may read it.
        new = cleanup.enter_context(_NewFile(path, 0o600 if copied else 0o666))
        file = _writer(new.descriptor, path)
        cleanup.callback(_close, file)
        yield file
        with _naming(path):
            file.flush()
            if copied:
                _copy_status(new.descriptor, copied)
            _synchronise(new.descriptor)
            new.take_name(force=force)


@contextmanager
def _open_special(path: str) -> Iterator[BinaryIO]:
    """Open a device, a pipe, or the descriptor that `path` stands for."""
    descriptor = descriptor_of(path)
    if descriptor is not None:
        with _open_descriptor(descriptor, path) as file:
            yield file
        return
    with _naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileError(path, "was replaced by another program meanwhile")
        with _open_descriptor(descriptor, path) as file:
            yield file
    finally:
        os.close(descriptor)


class _NewFile:
    """A file that has its final name only after :meth:`take_name`; else it is gone when it is closed.

    `descriptor` can be read from, too: to verify what was written.
    """

    def __init__(self, path: str, permissions: int):
        self._path, self._temporary = path, ""  # it has no name where the system can do without
        with _naming(path):
            folder, self._name = os.path.split(os.path.realpath(path))
            self._folder = _open_folder(folder)
            try:
                self.descriptor = self._create(permissions)
            except BaseException:
                os.close(self._folder)
                raise

    def __enter__(self) -> _NewFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._remove(self._temporary)
        os.close(self.descriptor)
        os.close(self._folder)

    def take_name(self, *, force: bool) -> None:
        """Give the file its name; without `force` only if no other file has it."""
        if not self._temporary:
            # Nothing is left over if the process is killed here; to replace a file, it takes a name for a moment.
            with suppress(FileExistsError) if force else nullcontext():
                if self._link(self._name):
                    _synchronise(self._folder)
                    return
            self._temporary = self._temporary_name()
            if not self._link(self._temporary):
                self._copy()
        named = os.stat(self._temporary, dir_fd=self._folder, follow_symlinks=False)
        if not os.path.samestat(named, os.fstat(self.descriptor)):
            raise FileError(self._path, "was replaced by another program while it was written")
        if force:
            self._rename()
        elif not self._link(self._name):
            self._rename_to_new()
        _synchronise(self._folder)

    def _create(self, permissions: int) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        if hasattr(os, "O_TMPFILE") and os.path.isdir(DESCRIPTORS):
            try:
                return os.open(".", flags | os.O_TMPFILE, permissions, dir_fd=self._folder)
            except OSError as error:
                if error.errno not in NO_UNNAMED_FILES:
                    raise
        return self._create_temporary(permissions)

    def _create_temporary(self, permissions: int) -> int:
        self._temporary = self._temporary_name()
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            return os.open(self._temporary, flags, permissions, dir_fd=self._folder)
        except BaseException:
            self._remove(self._temporary)
            raise

    def _temporary_name(self) -> str:
        name = f".llmzip-{os.urandom(8).hex()}.tmp"
        _unfinished.add((self._folder, name))
        return name

    def _remove(self, name: str) -> None:
        if name:
            _remove(self._folder, name)

    def _link(self, name: str) -> bool:
        """Give the open file a name that no other has; return False where the file system cannot do so."""
        try:
            if os.path.isdir(DESCRIPTORS):
                # With a folder's descriptor, Python's link follows the link that stands for the open file.
                source = f"{DESCRIPTORS}/{self.descriptor}"
                os.link(source, name, dst_dir_fd=self._folder, follow_symlinks=True)
            else:
                folder = self._folder
                os.link(self._temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return False
        return True

    def _copy(self) -> None:
        """Continue with a copy that has a temporary name: the file system gives this file none."""
        unnamed, status = self.descriptor, os.fstat(self.descriptor)
        self._remove(self._temporary)
        self.descriptor = self._create_temporary(0o600)
        try:
            os.lseek(unnamed, 0, os.SEEK_SET)
            with open(unnamed, "rb", closefd=False) as old, open(self.descriptor, "wb", closefd=False) as new:
                shutil.copyfileobj(old, new)
        finally:
            os.close(unnamed)
        _copy_status(self.descriptor, status)
        _synchronise(self.descriptor)

    def _rename(self) -> None:
        os.replace(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _rename_to_new(self) -> None:
        """Rename the file unless another one has the name, on file systems without hard links."""
        if _renameat2(self._folder, self._temporary, self._name):
            return
        # Claim the name with an empty file, as it cannot be taken and tested in one step.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        claim = self._folder, self._name
        os.close(os.open(self._name, flags, dir_fd=self._folder))
        _unfinished.add(claim)
        try:
            self._rename()
        except BaseException:
            _remove(*claim)
            raise
        _unfinished.discard(claim)


def _open_folder(path: str) -> int:
    """Open a folder in which names are to be made and removed."""
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDONLY | flags)
    except PermissionError:  # it may be one to write in, and not to read
        return os.open(path, getattr(os, "O_PATH", os.O_RDONLY) | flags)


def _remove(folder: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)
    _unfinished.discard((folder, name))


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # what is in its buffer may not fit on the disk
        file.close()


def _copy_status(descriptor: int, source: os.stat_result) -> None:
    """Give a file the permissions and times of `source`, and its owner where that is allowed."""
    permissions = source.st_mode & 0o777
    try:
        os.fchown(descriptor, source.st_uid, source.st_gid)
    except OSError:
        # The group may be another one now: it gets no more than all others have.
        permissions &= ~0o070 | (permissions & 0o007) << 3
    os.fchmod(descriptor, permissions)
    os.utime(descriptor, ns=(source.st_atime_ns, source.st_mtime_ns))


def _synchronise(descriptor: int) -> None:
    """Wait until a file or a folder is on the disk, where its file system can tell."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (*UNSUPPORTED, errno.EBADF):  # the latter of a folder that could not be opened to read
            raise


def _renameat2(folder: int, old: str, new: str) -> bool:
    """Rename a file unless another one has the new name; return False where that cannot be done in one step."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if rename(folder, os.fsencode(old), folder, os.fsencode(new), RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), new)
