"""The process that compiles the encoder's loop while this one compiles the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import llmzip
from llmzip.coding import precompiler, token_kernels
from llmzip.kernel_cache import config

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="the compiler is off")

SAME_KERNEL = """
from llmzip.coding import precompiler, token_kernels
from llmzip.coding.token_coder import TokenCoder
from llmzip.model import registry

precompiler.compile_encoder()
print(len(token_kernels.encode_steps.overloads))
coder = TokenCoder(registry.load(registry.DEFAULT), threads=2)
for lanes in (1, 3):
    coder.encode(b"It was the best of times, it was the worst of times. " * 9, lane_count=lanes)
print(len(token_kernels.encode_steps.overloads))
"""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """The functions that the kernel was told to wait with, for a machine on which nothing is compiled yet."""
    told: list[Callable[[], None]] = []
    monkeypatch.setattr(token_kernels.encode_steps, "compiled_elsewhere", told.append)
    monkeypatch.setattr(precompiler, "compiled_before", lambda _: False)
    monkeypatch.setattr(precompiler, "can_keep_kernels", lambda: True)
    monkeypatch.setattr(precompiler, "usable_cores", lambda: 2)
    return told


def start() -> None:
    precompiler.start.__wrapped__()  # as if for the first time


def test_compiles_the_kernel_that_a_compression_calls() -> None:
    """With arguments of the same types: else it would be compiled again."""
    environment = {**os.environ, "PYTHONPATH": str(Path(llmzip.__file__).parents[1])}
    output = subprocess.check_output([sys.executable, "-c", SAME_KERNEL], env=environment, text=True)
    assert output.split() == ["1", "1"]


def test_a_process_that_fails_holds_nothing_up(waits: list[Callable[[], None]], monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    start()
    (wait,) = waits
    wait()
    wait()


def test_a_process_that_hangs_is_ended(waits: list[Callable[[], None]], monkeypatch, tmp_path: Path) -> None:
    program = tmp_path / "hang"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(precompiler, "PATIENCE", 0.1)
    start()
    (wait,) = waits
    wait()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("compiled_before", lambda _: True),
        ("can_keep_kernels", lambda: False),
        ("usable_cores", lambda: 1),
    ],
)
def test_is_not_started_where_it_is_of_no_use(name: str, value, waits, monkeypatch) -> None:
    monkeypatch.setattr(precompiler, name, value)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    start()
    assert not waits


@pytest.mark.parametrize("executable", ["", "/nowhere/python"])
def test_does_without_where_it_cannot_be_started(executable: str, waits, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    start()
    assert not waits


def test_ends_when_its_parent_does(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(llmzip.__file__).parents[1]), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    command = [sys.executable, "-P", "-m", "llmzip.coding.precompiler"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
        process.stdin.close()
        assert process.wait(60) == 1
    assert not list(tmp_path.rglob("token_kernels_encode_steps-*.kernel"))


def test_the_kernel_waits_before_it_is_compiled() -> None:
    from llmzip.jit import jit

    @jit
    def kernel(a: int) -> int:
        return a + 1

    waited = []
    kernel.compiled_elsewhere(lambda: waited.append(time.monotonic()))
    assert kernel(1) == 2
    assert kernel(1.5) == 2.5
    assert len(waited) == 1
