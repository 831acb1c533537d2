"""The `jit` decorator: where compiled kernels are kept, and that nothing breaks where they cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import llmzip
from llmzip import jit as jit_module

PROGRAM = """
from llmzip.jit import CACHE_DIR, jit
import numba

@jit
def product(a, b):
    return a * b

print(product(6, 7))
print(CACHE_DIR)
print(numba.config.CACHE_DIR)
"""


@pytest.fixture
def run(tmp_path: Path):
    """Run PROGRAM in a new process with the given variables; return its output lines and the cache folder."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)

    def start(**variables: str) -> list[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_"))}
        inherited["PYTHONPATH"] = str(Path(llmzip.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, str(script)],
            env={**inherited, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return start


def test_kernels_are_kept_under_package_version_and_python_tag(run, tmp_path: Path) -> None:
    number, folder, error = run(XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert (number, error) == ("42", "")
    assert folder == str(tmp_path / "cache" / "llmzip" / f"{llmzip.__version__}-{sys.implementation.cache_tag}")
    assert list(Path(folder).rglob("*.nbc"))


def test_default_folder_is_below_the_home_folder(run, tmp_path: Path) -> None:
    # A relative XDG_CACHE_HOME is ignored, as the XDG specification asks.
    output = run(HOME=str(tmp_path), XDG_CACHE_HOME="relative")
    assert output[0] == "42"
    assert Path(output[1]).is_relative_to(tmp_path / ".cache" / "llmzip")


def test_folder_chosen_by_the_user_wins(run, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    assert run(NUMBA_CACHE_DIR=str(mine)) == ["42", str(mine), str(mine)]
    assert list(mine.rglob("*.nbc"))


@pytest.mark.parametrize("name", ["XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
def test_falls_back_to_no_cache_where_nothing_can_be_written(run, tmp_path: Path, name: str) -> None:
    # Below a regular file no folder can be made, not even by root, who may write in read-only folders.
    obstacle = tmp_path / "file"
    obstacle.write_text("")
    output = run(**{name: str(obstacle / "cache")})
    assert output[:2] == ["42", "None"]


def test_falls_back_to_no_cache_in_a_read_only_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert jit_module.writable_cache_dir() == str(tmp_path)
    monkeypatch.setattr(jit_module.tempfile, "TemporaryFile", refuse)
    assert jit_module.writable_cache_dir() is None


def test_without_the_compiler_a_kernel_is_the_function_itself(run) -> None:
    assert run(NUMBA_DISABLE_JIT="1")[0] == "42"


def test_division_by_zero_is_numpys() -> None:
    @jit_module.jit
    def divide(a: float, b: float) -> float:
        return a / b

    assert divide(1.0, 0.0) == float("inf")


def test_cache_folder_depends_on_the_module_and_what_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit_module, "PACKAGE", tmp_path)
    (tmp_path / "top.py").write_text("from llmzip import below\nfrom llmzip.side import f\n")
    (tmp_path / "below.py").write_text("import llmzip.bottom\nimport os\n")
    for name in ("side", "bottom", "stranger"):
        (tmp_path / f"{name}.py").write_text("")
    before = jit_module.source_digest(tmp_path / "top.py")
    (tmp_path / "stranger.py").write_text("x = 1")
    assert jit_module.source_digest(tmp_path / "top.py") == before
    for name in ("side", "bottom"):
        (tmp_path / f"{name}.py").write_text("x = 1")
        changed = jit_module.source_digest(tmp_path / "top.py")
        assert changed != before
        before = changed


def test_knows_whether_kernels_were_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit_module, "CACHE_DIR", str(tmp_path))
    assert not jit_module.compiled_before()
    folder = Path(jit_module.module_cache_dir(jit_module.PACKAGE / "coding/token_kernels.py"))
    folder.mkdir()
    (folder / "kernel.1.nbc").touch()
    assert jit_module.compiled_before()
