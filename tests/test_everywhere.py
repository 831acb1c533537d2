"""The same archive under every setting of the machine that changes float results."""

import hashlib
from pathlib import Path

import pytest
from machine_settings import SETTINGS, digests
from networks import tiny_model_file
from texts import words


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    path.write_bytes(tiny_model_file(dictionary=words(40, seed=1)))
    return path


def test_archives_are_the_same_under_all_cpu_settings(model, tmp_path):
    seen = {name: digests(model, 6000, *setting, tmp_path) for name, setting in SETTINGS.items()}
    assert len(set.union(*seen.values())) == 1, seen


def test_archives_are_the_same_without_the_compiler(model, tmp_path):
    compiled = digests(model, 150, "int16", 1, {}, tmp_path)
    assert digests(model, 150, "float32", 1, {"NUMBA_DISABLE_JIT": "1"}, tmp_path) == compiled


GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.lz")), ids=lambda p: p.name)
def test_golden_archives(path):
    import llmzip

    name = path.name.removesuffix(".lz")
    model = "default" if name.endswith(".default") else None  # else llmzip's own choice
    original = path.with_name(name.removesuffix(".default")).read_bytes()
    archive = path.read_bytes()
    assert llmzip.decompress(archive) == original
    assert hashlib.sha256(llmzip.compress(original, model=model)).digest() == hashlib.sha256(archive).digest()


def test_there_are_golden_archives():
    assert len(list(GOLDEN.glob("*.lz"))) >= 3
