"""A program with one kernel, run in a process of its own, and the files that its cache holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import llmzip

MODULE = """
from llmzip.jit import jit

@jit
def product(a, b):
    return a * b
"""
PROGRAM = """
from kernel_module import product
from llmzip.kernel_cache import problems

print(product(6, 7))
print(sum(product.stats.cache_hits.values()) if hasattr(product, "stats") else 0, "hits")
print(problems)
"""


def run(folder: Path, *, before: str = "", **variables: str) -> list[str]:
    """Run the program, with some lines in front, and return what it prints: result, cache hits, problems."""
    (folder / "kernel_module.py").write_text(MODULE)
    script = folder / "program.py"
    script.write_text(before + PROGRAM)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_"))}
    inherited["PYTHONPATH"] = str(Path(llmzip.__file__).parents[1])
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env={**inherited, **variables}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def kernels(folder: Path) -> list[Path]:
    """Return the files of compiled kernels in and below a folder."""
    return sorted(folder.rglob("*.kernel"))
