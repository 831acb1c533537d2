"""Compile the package's kernels with numba, cached on disk where that is possible.

Every kernel of the package is decorated with `jit`, so that they all share one set of rules: no
GIL, numpy's division, no fast-math (a decoder must compute exactly what the encoder computed), and
no bounds checks unless `NUMBA_BOUNDSCHECK=1` asks for them. `NUMBA_DISABLE_JIT=1` runs the kernels
as plain Python.

Compiled kernels are kept in the user's cache folder under the package version, the Python tag and a
digest of their module's source and of all modules of the package that it imports: a change of any of
these compiles afresh. A folder chosen with `NUMBA_CACHE_DIR` wins; where nothing can be written,
kernels are compiled afresh in each process. The files are those of :mod:`llmzip.kernel_cache`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from llmzip._version import __version__
from llmzip.kernel import Kernel
from llmzip.kernel_cache import SUFFIX, Folder, config

PACKAGE = Path(__file__).parent


# A statement with its module and, after "from", its names in a line or in parentheses. In comments and texts it does
# no harm: a module more is looked at. Parsing took 0.1 s at every start.
NAMES = rb"\s+import\s+(\([^)]*\)|.*)"
IMPORT = re.compile(rb"\b(?:from|import)\s+llmzip\.([\w.]+)(?:" + NAMES + rb")?|\bfrom\s+llmzip" + NAMES)


@functools.cache
def _source(path: Path) -> tuple[bytes, frozenset[Path]]:
    """Return a module's source and the package's modules that it names in import statements."""
    source, files = path.read_bytes(), set()
    for module, names, directly in IMPORT.findall(source):
        parts = module.decode().split(".") if module else []
        for name in ["", *re.findall(r"\w+", (names or directly).decode())]:
            files.add(PACKAGE.joinpath(*parts, name).with_suffix(".py"))
    return source, frozenset(file for file in files if file.is_file())


@functools.cache
def source_digest(path: Path) -> str:
    """Return a digest of a module and of all that it imports, directly or not, from the package.

    numba itself looks only at the time and size of the one file that a kernel is in, which wheels make the same for
    every build, and not at the kernels that it calls.
    """
    found, waiting = {path}, [path]
    while waiting:
        new = _source(waiting.pop())[1] - found
        found |= new
        waiting += new
    return hashlib.sha256(b"\0".join(_source(file)[0] for file in sorted(found))).hexdigest()[:12]


def cache_base() -> tuple[Path, tuple[str, ...]] | None:
    """Return the folder that the cache is made in, and its parts below, which must be this user's; None for no cache.

    The latter where there is no home folder: a ``~`` that stays as it is names a folder in the working one.
    """
    if config.CACHE_DIR:
        chosen = Path(os.path.abspath(config.CACHE_DIR))
        return chosen.parent, (chosen.name,)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    root = base if os.path.isabs(base) else os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(root):
        return None
    return Path(root), ("llmzip", f"{__version__}-{sys.implementation.cache_tag}")


def cache_folder(path: Path) -> Folder | None:
    """Return the folder for the kernels of the module at `path`, or None where none can be kept."""
    if CACHE is None or not path.is_file():
        return None
    base, parts = CACHE
    return Folder(base, (*parts, source_digest(path)))


def jit(function: Callable[..., Any], *, inlined: bool = False) -> Any:
    """Compile *function* in numba's nopython mode when it is first called; `inlined` into the kernels that call it.

    A call costs two atomic operations for each array that is passed on, more than the work of a small kernel.
    """
    if config.DISABLE_JIT:
        return function
    return Kernel(function, inlined=inlined, folder=cache_folder(Path(function.__code__.co_filename)))


def inlined(function: Callable[..., Any]) -> Any:
    """Compile *function* into each kernel that calls it."""
    return jit(function, inlined=True)


CACHE = cache_base()


def compiled_before(names: str) -> bool:
    """Return whether a token kernel with one of these names, in which ``*`` stands for anything, is in the cache."""
    folder = cache_folder(PACKAGE / "coding/token_kernels.py")
    kept = f"token_kernels_{names}-*{SUFFIX}"
    return bool(config.DISABLE_JIT) or (folder is not None and any(folder.path.glob(kept)))


def can_keep_kernels() -> bool:
    """Return whether compiled kernels can be kept for other processes."""
    folder = cache_folder(PACKAGE / "coding/token_kernels.py")
    try:
        if folder:
            os.close(folder.open(create=True))
    except OSError:
        return False
    return folder is not None and os.access(folder.path, os.W_OK)


@intrinsic
def _unowned(typing_context: Any, array: Any) -> Any:  # noqa: ARG001 - numba counts them
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        fields = context.make_array(signature.args[0])(context, builder, args[0])
        fields.meminfo = ir.Constant(fields.meminfo.type, None)
        fields.parent = ir.Constant(fields.parent.type, None)
        return fields._getvalue()

    return array(array), generate


@intrinsic
def _float_of_bits(typing_context: Any, bits: Any) -> Any:  # noqa: ARG001 - numba counts them
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.bitcast(args[0], ir.FloatType())

    return numba.types.float32(bits), generate


if config.DISABLE_JIT:

    def float_of_bits(bits: Any) -> Any:
        """Return the float32 whose bits an int32 is."""
        return np.int32(bits).view(np.float32)

    def unowned(array: Any) -> Any:
        """Return the array."""
        return array

else:

    @inlined
    def float_of_bits(bits):
        """Return the float32 whose bits an int32 is."""
        return _float_of_bits(np.int32(bits))

    @inlined
    def unowned(array):
        """Return the array without its owner, who must outlive the use: no references are counted, which is slow."""
        return _unowned(array)
