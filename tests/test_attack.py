"""The attack of scripts/attack: nothing of what must not happen does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ATTACK = Path(__file__).parents[1] / "scripts" / "attack"


def attack(mutations: int, kills: int, models: int, **environment: str) -> str:
    """Run the attack with these counts and return what it prints."""
    counts = ["--mutations", str(mutations), "--kills", str(kills), "--models", str(models)]
    command = [sys.executable, str(ATTACK), *counts]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_short_attack() -> None:
    out = attack(200, 20, 5)
    assert "mutated archives, decompress: 200\n" in out
    assert "kills: 20\n" in out
    assert "hostile models: 5\n" in out
    assert out.rstrip().endswith("sound")


@pytest.mark.slow
def test_a_long_attack() -> None:
    assert "mutated archives, decompress: 100000\n" in attack(100_000, 500, 1000)


@pytest.mark.slow
def test_no_kernel_leaves_its_arrays(tmp_path: Path) -> None:
    """Compiled with checks of every index, hostile payloads and models raise no IndexError in the kernels."""
    attack(5000, 0, 300, NUMBA_BOUNDSCHECK="1", XDG_CACHE_HOME=str(tmp_path))
