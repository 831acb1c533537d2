"""Compile the package's kernels with numba, cached on disk where that is possible.

Every kernel of the package is decorated with `jit`, so that they all share one set of rules: no
GIL, numpy's division, no fast-math (a decoder must compute exactly what the encoder computed), and
no bounds checks unless `NUMBA_BOUNDSCHECK=1` asks for them. `NUMBA_DISABLE_JIT=1` runs the kernels
as plain Python.

Compiled kernels are kept in the user's cache folder under the package version, the Python tag and a
digest of the package's source: any change of it compiles afresh. A folder chosen with
`NUMBA_CACHE_DIR` wins; where nothing can be written, kernels are compiled afresh in each process.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from llmzip import __version__

config: Any = numba.config  # its settings are made at run time, unknown to type checkers
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def default_cache_dir() -> Path:
    """Return the folder for compiled kernels of this source and this Python.

    numba itself looks only at the time and size of the one file that a kernel is in, which wheels make the same for
    every build, and not at the kernels that it calls.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~"), ".cache")
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
    return root / "llmzip" / f"{__version__}-{sys.implementation.cache_tag}-{digest[:12]}"


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


def jit(function: Kernel) -> Kernel:
    """Compile *function* in numba's nopython mode when it is first called."""
    # numba reads its setting when a function is decorated; restored, so that other users of numba
    # in this process keep their own folder.
    before = config.CACHE_DIR
    config.CACHE_DIR = CACHE_DIR or before
    try:
        # Typed as the function it stands for, which it also is where the compiler is off.
        compiled: Any = numba.njit(nogil=True, error_model="numpy", fastmath=False, cache=CACHE_DIR is not None)(
            function
        )
        return cast(Kernel, compiled)
    finally:
        config.CACHE_DIR = before


CACHE_DIR = writable_cache_dir()


def compiled_before() -> bool:
    """Tell whether kernels of this source have been compiled and kept: without them the first call takes a minute."""
    return bool(config.DISABLE_JIT) or (CACHE_DIR is not None and any(Path(CACHE_DIR).rglob("*.nbc")))
