"""Corpora behind URLs: fetched once, under their names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llmzip.api.remote import without_secrets
from llmzip.errors import FileError
from llmzip.training.fetching import local_paths


def fetched(folder: Path, url: str) -> Path:
    [path] = local_paths([url], folder, quiet=True)
    return path


def test_paths_stay_as_they_are(tmp_path: Path) -> None:
    assert local_paths(["a//b/", Path("c")], tmp_path, quiet=True) == [Path("a/b"), Path("c")]
    assert not list(tmp_path.iterdir())


def test_file_is_fetched_once_under_its_name(memory, tmp_path: Path) -> None:
    memory.pipe("/data/a_1.jsonl.gz", b"one")
    path = fetched(tmp_path, "memory://data/a_1.jsonl.gz")
    assert path.name == "a_1.jsonl.gz"
    assert path.read_bytes() == b"one"
    memory.pipe("/data/a_1.jsonl.gz", b"two")
    assert fetched(tmp_path, "memory://data/a_1.jsonl.gz") == path
    assert path.read_bytes() == b"one"
    assert fetched(tmp_path / "other", "memory://data/a_1.jsonl.gz").read_bytes() == b"two"


def test_folder_is_fetched_with_what_is_below(memory, tmp_path: Path) -> None:
    files = {"a.txt": b"a", "b/c.txt": b"c", "b/d/e.txt": b"e"}
    for name, data in files.items():
        memory.pipe(f"/data/{name}", data)
    for url in ("memory://data", "memory://data/"):
        path = fetched(tmp_path, url)
        assert path.name == "data"
        assert {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()} == files


def test_files_of_one_name_do_not_meet(memory, tmp_path: Path) -> None:
    memory.pipe("/a/x.txt", b"a")
    memory.pipe("/b/x.txt", b"b")
    paths = local_paths(["memory://a/x.txt", "memory://b/x.txt"], tmp_path, quiet=True)
    assert [path.read_bytes() for path in paths] == [b"a", b"b"]


def test_interrupted_fetching_leaves_nothing_that_looks_whole(memory, tmp_path: Path, monkeypatch) -> None:
    memory.pipe("/data/a.txt", b"one")

    def cut(_: str, local: str, **__: object) -> None:
        Path(local).write_bytes(b"o")
        raise ConnectionResetError("reset by https://user:secret@host/")

    with monkeypatch.context() as patch:
        patch.setattr(memory, "get_file", cut)
        with pytest.raises(FileError, match="cannot be reached: reset by https://host/"):
            fetched(tmp_path, "memory://data/a.txt")
    assert fetched(tmp_path, "memory://data/a.txt").read_bytes() == b"one"


@pytest.mark.usefixtures("memory")
def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    for url, message in (
        ("memory://data/nosuch.txt", "No such file or directory"),
        ("https://[half", "cannot be reached: Invalid IPv6 URL"),
        ("nosuch://user:secret@host/a.txt?key=secret", "cannot be reached: Protocol not known"),
    ):
        with pytest.raises(FileError, match=message) as caught:
            fetched(tmp_path, url)
        assert caught.value.filename == without_secrets(url)
        assert "secret" not in f"{caught.value.filename}{caught.value}"


def test_names_cannot_lead_out_of_the_folder(memory, tmp_path: Path, monkeypatch) -> None:
    memory.pipe("/data/a.txt", b"one")
    monkeypatch.setattr(memory, "find", lambda path, detail: {f"{path}/../../a.txt": {"size": 3}} if detail else [])
    with pytest.raises(FileError, match="out of its folder"):
        fetched(tmp_path, "memory://data")


def test_missing_package_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(FileError, match=r"llmzip\[remote\]"):
        fetched(tmp_path, "s3://bucket/a.txt")
