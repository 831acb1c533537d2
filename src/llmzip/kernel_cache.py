"""Keep compiled kernels on disk, in files that are checked before they are used.

A file holds pickled machine code: whoever can write it runs programs as its reader. So every folder from the cache's
own down must belong to this user or to root, be no link, and not be writable by others; it is opened once, and its
files through its descriptor. Each file begins with the SHA-256 of the rest, because damaged code need not crash: it may
compute something else. Whatever is wrong with a file or a folder, the kernel is compiled in memory, and nothing is said
but to who asks (:data:`problems`). A warm cache that cannot be written to, as in a container's image, is used.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite.binding import address_of_symbol
from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult
from numba.core.runtime.nrt import rtsys
from numba.core.serialize import dumps

config: Any = numba.config  # its settings are made at run time, unknown to type checkers

SUFFIX = ".kernel"
DIGEST_SIZE = 32
MOST_BYTES = 1 << 28  # of a file; the largest kernels have some hundred kilobytes
SHARED = stat.S_IWGRP | stat.S_IWOTH

problems: list[str] = []  # why kernels were compiled that might have been loaded, or could not be kept


class Folder:
    """A cache folder below `base`, all of whose `parts` are made when something is kept, readable by this user only."""

    def __init__(self, base: Path, parts: tuple[str, ...]):
        self.path = base.joinpath(*parts)
        self._base, self._parts = base, parts

    def open(self, *, create: bool) -> int:
        """Return a descriptor of the folder; raises OSError if there is none, or none to trust."""
        descriptor = self._open_base(create)
        for part in self._parts:
            above = descriptor
            try:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=above)
                descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            finally:
                os.close(above)
            try:
                check_trusted(os.fstat(descriptor), str(self.path))
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    def _open_base(self, create: bool) -> int:
        if create:
            os.makedirs(self._base, 0o700, exist_ok=True)
        return os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def check_trusted(status: os.stat_result, name: str) -> None:
    """Raise PermissionError if another user than this one or root could have written what has this status."""
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & SHARED:
        raise PermissionError(errno.EPERM, "can be written to by other users", name)


class KernelCache(FunctionCache):
    """The cache of one function, as numba's dispatchers use it: a file for each signature and processor."""

    kind = ""  # set apart from other results of the same function

    def __init__(self, function: Callable[..., Any], folder: Folder):
        self._py_func, self._folder = function, folder
        name = f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}{self.kind}"
        self._name = re.sub(r"\W", "_", name)

    @property
    def cache_path(self) -> str:
        """Return the folder's path."""
        return str(self._folder.path)

    def enable(self) -> None:
        """Do nothing: it is on."""

    disable = flush = enable

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function for a signature, None if it has to be compiled."""
        try:
            key, name = self._key(sig, target_context.codegen())
            content = self._read(name)
            if content is None:
                return None
            stored_key, payload = pickle.loads(content)  # noqa: S301 - from a trusted folder, and checked
            if stored_key != key:
                raise ValueError("holds another kernel")
            return self.restored(target_context, payload)
        except Exception as error:  # whatever is wrong with it
            self._note("cannot be used", error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function, if that is possible."""
        if any(not lifted.can_cache for lifted in data.lifted) or data.library.has_dynamic_globals:
            return
        try:
            key, name = self._key(sig, data.codegen)
            self._write(name, dumps((key, self.reduced(data))))
        except Exception as error:
            self._note("cannot be kept", error)

    def reduced(self, result: Any) -> tuple[Any, ...]:
        """Return the parts of a result that are kept, to be pickled."""
        module = result.library._final_module
        needed = [item.name for item in (*module.functions, *module.global_variables) if item.is_declaration]
        return [name for name in needed if not name.startswith("llvm.")], result._reduce()

    def restored(self, target_context: Any, parts: tuple[Any, ...]) -> Any:
        """Return the result that was reduced."""
        needed, reduced = parts
        # All that loaded code calls, for nearly every kernel. The compiler's declarations take longer to load.
        rtsys.initialize(target_context)
        if not all(map(address_of_symbol, needed)):
            target_context.refresh()
            missing = [name for name in needed if not address_of_symbol(name)]
            if missing:  # LLVM would end the process
                raise ValueError(f"calls {', '.join(missing)}, which this process does not have")
        return CompileResult._rebuild(target_context, *reduced)

    def _key(self, sig: Any, codegen: Any) -> tuple[str, str]:
        """Return what the machine code depends on besides the module's source, and the name of its file."""
        settings = numba.__version__, llvmlite.__version__, config.OPT, config.BOUNDSCHECK
        key = repr((self._name, *self._index_key(sig, codegen), settings))
        return key, f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}{SUFFIX}"

    def _read(self, name: str) -> bytes | None:
        try:
            folder = self._folder.open(create=False)
        except FileNotFoundError:
            return None
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return None
        finally:
            os.close(folder)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            check_trusted(status, name)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
                raise ValueError("is no file of this cache")
            data = file.read()
        if hashlib.sha256(data[DIGEST_SIZE:]).digest() != data[:DIGEST_SIZE]:
            raise ValueError("is damaged")
        return data[DIGEST_SIZE:]

    def _write(self, name: str, content: bytes) -> None:
        folder = self._folder.open(create=True)
        temporary = f"{name}.{os.urandom(8).hex()}.tmp"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        finally:
            os.close(folder)

    def _note(self, what: str, error: Exception) -> None:
        problems.append(f"compiled kernel {self._name} in {self._folder.path} {what}: {error}")
