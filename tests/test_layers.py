"""The contract that imports run one way, as pyproject.toml states it: it holds, and it can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import llmzip

PACKAGE = Path(llmzip.__file__).parent
CONFIGURATION = Path(__file__).parents[1] / "pyproject.toml"


@pytest.fixture
def package(tmp_path):
    """A copy of the package to break."""
    copy = tmp_path / "llmzip"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    return copy


def lint(package: Path) -> subprocess.CompletedProcess[str]:
    linter = Path(sys.executable).with_name("lint-imports")
    command = [linter, "--config", CONFIGURATION, "--no-cache"]
    env = os.environ | {"PYTHONPATH": str(package.parent), "COLUMNS": "200"}
    return subprocess.run(command, cwd=package.parent, env=env, capture_output=True, text=True, check=False)


def test_imports_run_one_way(package):
    done = lint(package)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "what"),
    [
        ("container/format.py", "from llmzip.coding import lanes", "container is not allowed to import llmzip.coding"),
        ("mixing/match.py", "from llmzip.network import softmax", "mixing is not allowed to import llmzip.network"),
        ("api/stream.py", "from llmzip.tools import machine", "api is not allowed to import llmzip.tools"),
        ("errors.py", "from llmzip import jit", "errors is not allowed to import llmzip.jit"),
    ],
)
def test_an_import_that_runs_back_up_is_found(package, module, line, what):
    path = package / module
    path.write_text(path.read_text() + f"\n{line}\n")
    done = lint(package)
    assert done.returncode == 1
    assert f"llmzip.{what}" in done.stdout


def test_a_new_module_at_the_root_needs_a_layer(package):
    (package / "utils.py").write_text('"""Nothing in particular."""\n')
    assert lint(package).returncode == 1


def test_packages_export_nothing():
    """`jit` keys compiled kernels on the modules that imports name; it does not follow what an __init__ exports."""
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent not in (PACKAGE, PACKAGE / "cli", PACKAGE / "cluster"):
            assert "import" not in path.read_text(), path
