"""Compile the package's kernels with numba, cached on disk where that is possible.

Every kernel of the package is decorated with `jit`, so that they all share one set of rules: no
GIL, numpy's division, no fast-math (a decoder must compute exactly what the encoder computed), and
no bounds checks unless `NUMBA_BOUNDSCHECK=1` asks for them. `NUMBA_DISABLE_JIT=1` runs the kernels
as plain Python.

Compiled kernels are kept in the user's cache folder under the package version, the Python tag and a
digest of their module's source and of all modules of the package that it imports: a change of any of
these compiles afresh. A folder chosen with `NUMBA_CACHE_DIR` wins; where nothing can be written,
kernels are compiled afresh in each process.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba.extending import intrinsic

from llmzip._version import __version__

config: Any = numba.config  # its settings are made at run time, unknown to type checkers


PACKAGE = Path(__file__).parent


@functools.cache
def _imported(path: Path) -> frozenset[Path]:
    """Return the package's modules that the one at `path` names in its import statements."""
    names: list[str] = []
    for statement in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(statement, ast.ImportFrom) and statement.module:
            names += [statement.module, *(f"{statement.module}.{alias.name}" for alias in statement.names)]
        elif isinstance(statement, ast.Import):
            names += [alias.name for alias in statement.names]
    inside = (name.split(".")[1:] for name in names if name.startswith("llmzip."))
    files = (PACKAGE.joinpath(*parts).with_suffix(".py") for parts in inside if parts)
    return frozenset(file for file in files if file.is_file())


def source_digest(path: Path) -> str:
    """Return a digest of a module and of all that it imports, directly or not, from the package.

    numba itself looks only at the time and size of the one file that a kernel is in, which wheels make the same for
    every build, and not at the kernels that it calls.
    """
    found, waiting = {path}, [path]
    while waiting:
        new = _imported(waiting.pop()) - found
        found |= new
        waiting += new
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in sorted(found))).hexdigest()[:12]


def default_cache_dir() -> Path:
    """Return the folder for compiled kernels of this version and this Python."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~"), ".cache")
    return root / "llmzip" / f"{__version__}-{sys.implementation.cache_tag}"


def writable_cache_dir() -> str | None:
    """Return the cache folder, created if need be, or None where nothing can be written."""
    folder = config.CACHE_DIR or str(default_cache_dir())
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return None
    return folder


def module_cache_dir(path: Path) -> str | None:
    """Return the folder for the kernels of the module at `path`, or None where nothing can be written."""
    if CACHE_DIR is None or not path.is_relative_to(PACKAGE):
        return CACHE_DIR
    return os.path.join(CACHE_DIR, source_digest(path))


def jit(function: Callable[..., Any], *, inlined: bool = False) -> Any:
    """Compile *function* in numba's nopython mode when it is first called; `inlined` into the kernels that call it.

    A call costs two atomic operations for each array that is passed on, more than the work of a small kernel.
    """
    # numba reads its setting when a function is decorated; restored, so that other users of numba
    # in this process keep their own folder.
    before = config.CACHE_DIR
    config.CACHE_DIR = module_cache_dir(Path(function.__code__.co_filename)) or before
    try:
        # Where the compiler is off, this is the function itself.
        return numba.njit(
            nogil=True, error_model="numpy", fastmath=False, cache=CACHE_DIR is not None, forceinline=inlined
        )(function)
    finally:
        config.CACHE_DIR = before


def inlined(function: Callable[..., Any]) -> Any:
    """Compile *function* into each kernel that calls it."""
    return jit(function, inlined=True)


CACHE_DIR = writable_cache_dir()


def compiled_before() -> bool:
    """Return whether the token kernels, the largest, are in the cache: else the first call takes a minute."""
    folder = module_cache_dir(PACKAGE / "coding/token_kernels.py")
    return bool(config.DISABLE_JIT) or (folder is not None and any(Path(folder).rglob("*.nbc")))


@intrinsic
def _unowned(typing_context: Any, array: Any) -> Any:  # noqa: ARG001 - numba counts them
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        fields = context.make_array(signature.args[0])(context, builder, args[0])
        fields.meminfo = ir.Constant(fields.meminfo.type, None)
        fields.parent = ir.Constant(fields.parent.type, None)
        return fields._getvalue()

    return array(array), generate


if config.DISABLE_JIT:

    def unowned(array: Any) -> Any:
        """Return the array."""
        return array

else:

    @inlined
    def unowned(array):
        """Return the array without its owner, who must outlive the use: no references are counted, which is slow."""
        return _unowned(array)
