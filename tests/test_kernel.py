"""Kernels that call kernels: plain code is linked into the caller, and kept for the next caller."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import typeof

import llmzip
from llmzip.jit import PACKAGE, jit
from llmzip.kernel import LinkedLibrary
from llmzip.kernel_cache import config

COMPILED = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="the compiler is off")

MODULE = """
from llmzip.jit import jit

@jit
def below(a):
    return a * a

@jit
def first(a):
    return below(a) + 1

@jit
def second(a):
    return below(a) + 2
"""


def run(folder: Path, program: str) -> list[str]:
    (folder / "nested_kernels.py").write_text(MODULE)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_"))}
    paths = {"PYTHONPATH": f"{Path(llmzip.__file__).parents[1]}:{folder}", "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-c", program]
    return subprocess.check_output(command, env={**environment, **paths}, text=True).split()


@COMPILED
def test_what_a_kernel_calls_is_linked_and_gets_no_machine_code() -> None:
    @jit
    def below(values: np.ndarray) -> float:
        return values.sum()

    @jit
    def above(values: np.ndarray) -> float:
        return below(values) + 1

    assert above(np.arange(4.0)) == 7
    assert not below.overloads
    below.linked.compile((typeof(np.arange(4)),))
    *_, result = below.linked.overloads.values()  # called by nobody yet
    assert isinstance(result.library, LinkedLibrary)
    assert list(result.library.get_defined_functions())
    assert not result.codegen._engine.is_symbol_defined(result.fndesc.llvm_func_name)
    assert below(np.arange(4.0)) == 6
    assert len(below.overloads) == 1


@COMPILED
def test_errors_in_what_a_kernel_calls_are_raised() -> None:
    @jit
    def below(value: int) -> int:
        if value > 3:
            raise ValueError("too large", value)
        return value

    @jit
    def above(value: int) -> int:
        return below(value)

    with pytest.raises(ValueError, match="too large") as raised:
        above(7)
    assert raised.value.args == ("too large", 7)


def test_linked_code_is_kept_for_other_callers(tmp_path: Path) -> None:
    count = "print(sum(n.below.linked.stats.cache_hits.values()))"
    assert run(tmp_path, f"import nested_kernels as n; print(n.first(3)); {count}") == ["10", "0"]
    assert run(tmp_path, f"import nested_kernels as n; print(n.second(3)); {count}") == ["11", "1"]
    unused = "print('linked' in vars(n.below))"
    assert run(tmp_path, f"import nested_kernels as n; print(n.second(3)); {unused}") == ["11", "False"]


def test_no_kernel_assigns_a_tuple_to_a_row() -> None:
    """numba would compile the formatting of an error message about shapes with it, which takes two seconds."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_bytes())):
            decorators = getattr(function, "decorator_list", [])
            if not any(isinstance(d, ast.Name) and d.id in ("jit", "inlined") for d in decorators):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
                    assert not any(isinstance(t, ast.Subscript) for t in node.targets), f"{path}:{node.lineno}"
