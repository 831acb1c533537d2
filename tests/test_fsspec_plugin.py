"""Compressed files through fsspec and pandas."""

from __future__ import annotations

import bz2
import importlib

import fsspec
import fsspec.compression
import pandas
import pytest

import llmzip

pytestmark = pytest.mark.usefixtures("small_frames")


@pytest.fixture
def registered(fsspec_tables):  # noqa: ARG001 - it undoes the registration
    llmzip.register_fsspec()
    llmzip.register_fsspec()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("compression", ["llmzip", "infer"])
def test_fsspec_and_pandas(tiny_name, tmp_path, compression, monkeypatch):
    monkeypatch.setattr(importlib.import_module("llmzip.model.registry"), "DEFAULT", tiny_name)
    name = str(tmp_path / "table.csv.lz")
    table = pandas.DataFrame({"a": range(50), "b": ["ü"] * 50})
    with fsspec.open(name, "wt", compression=compression, encoding="utf-8", newline="") as file:
        table.to_csv(file, index=False)
    assert llmzip.decompress((tmp_path / "table.csv.lz").read_bytes()).startswith(b"a,b\n0,")
    with fsspec.open(name, "rt", compression=compression, encoding="utf-8") as file:
        assert pandas.read_csv(file).equals(table)
    with llmzip.open(name, "rt", encoding="utf-8") as file:
        assert pandas.read_csv(file).equals(table)


@pytest.mark.usefixtures("registered")
def test_names_that_others_have_registered_are_theirs():
    fsspec.compression.register_compression("llmzip", bz2.BZ2File, ["lz"], force=True)
    with pytest.raises(ValueError, match="Duplicate"):
        llmzip.register_fsspec()
    llmzip.register_fsspec(force=True)
    assert fsspec.compression.compr["llmzip"] is not bz2.BZ2File
