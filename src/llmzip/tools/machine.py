"""Describe the machine that something was measured on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from llmzip._version import __version__
from llmzip.threads import usable_cores

CPU_FLAGS = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8")
PACKAGES = ("torch", "numba", "numpy")


def processor() -> str:
    """Return the processor's name, its cores, and those of its flags that matter here."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    flags = [flag for flag in CPU_FLAGS if f" {flag}" in text]
    return (
        f"{name or platform.processor() or platform.machine()}, {usable_cores()} cores, {' '.join(flags) or 'no VNNI'}"
    )


def versions() -> str:
    """Return the versions that speed depends on."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    return ", ".join([f"llmzip {__version__}", f"Python {platform.python_version()}", *found])
