"""Compressed files through fsspec and pandas."""

from __future__ import annotations

import bz2
import importlib

import dask.bag
import fsspec
import fsspec.compression
import pandas
import pytest
import s3fs
from texts import noise

import llmzip
from llmzip.errors import FileError

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


@pytest.mark.usefixtures("registered", "s3")
def test_files_of_a_store(tiny_name, monkeypatch):
    monkeypatch.setattr(importlib.import_module("llmzip.model.registry"), "DEFAULT", tiny_name)
    lines = [f"line {i}\n" for i in range(200)]
    for i in range(2):
        with fsspec.open(f"s3://bucket/{i}.txt.lz", "wt", compression="infer") as file:
            file.writelines(lines[100 * i : 100 * i + 100])
    for compression in ("infer", "llmzip"):
        bag = dask.bag.read_text("s3://bucket/*.txt.lz", compression=compression)
        assert bag.compute(scheduler="sync") == lines
    with llmzip.open("s3://bucket/0.txt.lz", "rt") as file:
        assert list(file) == lines[:100]


def test_random_access_fetches_what_it_needs(s3, monkeypatch):
    """The head of each frame, the list of frames, and one frame."""
    frame = 200_000
    monkeypatch.setattr(importlib.import_module("llmzip.api.stream"), "FRAME_BYTES", frame)
    content = noise(20 * frame + 1000)  # which is stored
    s3.pipe("bucket/a.lz", llmzip.compress(content))
    ranges = []
    fetch = s3fs.core.S3File._fetch_range

    def count(file, start, end):
        ranges.append(end - start)
        return fetch(file, start, end)

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", count)
    with llmzip.open("s3://bucket/a.lz") as file:
        file.seek(13 * frame + 5)
        assert file.read(1000) == content[13 * frame + 5 :][:1000]
        assert len(ranges) <= 21 + 3
        assert sum(ranges) < frame + 25 * 1024
        assert file.seek(-10, 2)
        assert file.read() == content[-10:]
    assert sum(ranges) < frame + 27 * 1024


def test_urls_are_for_reading():
    with pytest.raises(FileError, match="can only be opened for reading"):
        llmzip.open("memory://a.lz", "wb")
