import signal

import fsspec
import fsspec.compression
import hypothesis
import pytest
import torch
from networks import tiny_model_file

from llmzip.model.file import Model, parse

# Jobs that a script runs in the background ignore SIGINT, and so would the programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Kernels compile in the first example.
hypothesis.settings.register_profile("llmzip", deadline=None, derandomize=True)
hypothesis.settings.load_profile("llmzip")


@pytest.fixture
def one_thread():
    """Keep torch from waiting for a second thread at every small product."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> Model:
    return parse(tiny_model_file())


@pytest.fixture
def tiny_file(tmp_path, monkeypatch):
    """The tiny model as a file, on the search path."""
    path = tmp_path / "models" / "tiny.safetensors"
    path.parent.mkdir()
    path.write_bytes(tiny_model_file())
    monkeypatch.setenv("LLMZIP_MODEL_PATH", str(path.parent))
    return path


@pytest.fixture
def fsspec_tables():
    """What is registered with fsspec is forgotten afterwards."""
    tables = fsspec.compression.compr, fsspec.utils.compressions
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)
