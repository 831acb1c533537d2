"""The `jit` decorator: the rules of compilation, and where compiled kernels are kept."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from kernel_programs import kernels, run

import llmzip
from llmzip import jit as jit_module


def test_kernels_are_kept_under_package_version_and_python_tag(tmp_path: Path) -> None:
    assert run(tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache")) == ["42", "0 hits", "[]"]
    folder = tmp_path / "cache" / "llmzip" / f"{llmzip.__version__}-{sys.implementation.cache_tag}"
    assert len(kernels(folder)) == 1
    assert run(tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache")) == ["42", "1 hits", "[]"]


def test_default_folder_is_below_the_home_folder(tmp_path: Path) -> None:
    # A relative XDG_CACHE_HOME is ignored, as the XDG specification asks.
    assert run(tmp_path, HOME=str(tmp_path), XDG_CACHE_HOME="relative")[0] == "42"
    assert kernels(tmp_path / ".cache" / "llmzip")


def test_folder_chosen_by_the_user_wins(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    assert run(tmp_path, NUMBA_CACHE_DIR=str(mine))[0] == "42"
    assert kernels(mine)


def test_without_a_home_folder_there_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tilde that cannot be expanded is no name of a folder."""
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, HOME="~", XDG_CACHE_HOME="") == ["42", "0 hits", "[]"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix) == ["kernel_module.py", "program.py"]
    assert not (tmp_path / "~").exists()


def test_without_the_compiler_a_kernel_is_the_function_itself(tmp_path: Path) -> None:
    assert run(tmp_path, NUMBA_DISABLE_JIT="1")[0] == "42"


def test_division_by_zero_is_numpys() -> None:
    @jit_module.jit
    def divide(a: float, b: float) -> float:
        return a / b

    assert divide(1.0, 0.0) == float("inf")


def test_cache_folder_depends_on_the_module_and_what_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit_module, "PACKAGE", tmp_path)
    (tmp_path / "top.py").write_text("from llmzip import (\n    below,\n)\nfrom llmzip.side import f\n")
    (tmp_path / "below.py").write_text("import llmzip.bottom\nimport os\n")
    for name in ("side", "bottom", "stranger"):
        (tmp_path / f"{name}.py").write_text("")

    def digest() -> str:
        jit_module._source.cache_clear()
        jit_module.source_digest.cache_clear()
        return jit_module.source_digest(tmp_path / "top.py")

    before = digest()
    (tmp_path / "stranger.py").write_text("x = 1")
    assert digest() == before
    for name in ("side", "bottom"):
        (tmp_path / f"{name}.py").write_text("x = 1")
        changed = digest()
        assert changed != before
        before = changed


def test_knows_whether_kernels_were_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit_module, "CACHE", (tmp_path, ("llmzip",)))
    assert not jit_module.compiled_before("encode_*")
    folder = jit_module.cache_folder(jit_module.PACKAGE / "coding/token_kernels.py").path
    folder.mkdir(parents=True)
    (folder / "token_kernels_encode_steps-0.kernel").touch()
    assert jit_module.compiled_before("encode_*")
    assert not jit_module.compiled_before("encode_bytes")
    assert not jit_module.compiled_before("decode_*")


def test_knows_whether_kernels_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit_module, "CACHE", (tmp_path, ("llmzip",)))
    assert jit_module.can_keep_kernels()
    (tmp_path / "llmzip").chmod(0o777)  # not to be trusted
    assert not jit_module.can_keep_kernels()
    monkeypatch.setattr(jit_module, "CACHE", None)
    assert not jit_module.can_keep_kernels()


def test_imports_are_found_as_a_parser_finds_them() -> None:
    for path in sorted(jit_module.PACKAGE.rglob("*.py")):
        names: list[str] = []
        for statement in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(statement, ast.ImportFrom) and statement.module:
                names += [statement.module, *(f"{statement.module}.{alias.name}" for alias in statement.names)]
            elif isinstance(statement, ast.Import):
                names += [alias.name for alias in statement.names]
        files = {jit_module.PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in names if "." in name}
        inside = {file for file in files if file.is_file()}
        assert inside <= jit_module._source(path)[1], path
