"""URLs: read, listed and written through fsspec, all or nothing."""

from __future__ import annotations

import io
import sys

import pytest

from llmzip.api import remote
from llmzip.api.remote import Found, is_url, new_object, open_url, without_secrets
from llmzip.errors import FileError

DATA = bytes(range(256)) * 100


def test_urls_are_told_from_names_and_shown_without_secrets() -> None:
    assert [is_url(name) for name in ("s3://a/b", "zip://a::https://b", "C:/a", "C://a", "a:b", "./s3://a")] == [
        *(True, True),
        *[False] * 4,
    ]
    assert without_secrets("https://user:pw@host/a.txt?X-Signature=7#x") == "https://host/a.txt"
    assert without_secrets("s3://bucket/a@b.txt") == "s3://bucket/a@b.txt"
    assert without_secrets("what?@x") == "what?@x"


@pytest.fixture(params=["memory://bucket", "s3://bucket"])
def bucket(request):
    """The URL of an empty folder, and its file system."""
    return request.param, request.getfixturevalue(request.param.partition(":")[0])


def names(system) -> list[str]:
    return sorted(name.lstrip("/") for name in system.find("bucket"))


def test_what_is_written_is_there_when_it_is_complete(bucket) -> None:
    base, system = bucket
    with new_object(f"{base}/a/b") as file:
        file.write(DATA)
        assert names(system) == []
    assert names(system) == ["bucket/a/b"]
    assert system.cat("bucket/a/b") == DATA


def test_after_an_error_there_is_nothing(bucket) -> None:
    base, system = bucket

    def fail() -> None:
        with new_object(f"{base}/a") as file:
            file.write(DATA)
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail()
    assert names(system) == []


def test_upload_that_fails_half_way_leaves_nothing(memory, monkeypatch) -> None:
    whole = type(memory).put_file

    def half(system, local, path, **_: object) -> None:
        whole(system, local, path)
        raise ConnectionResetError("reset by https://user:secret@host/")

    monkeypatch.setattr(type(memory), "put_file", half)
    with pytest.raises(FileError, match="cannot be reached: reset by https://host/"), new_object("memory://bucket/a"):
        pass
    assert names(memory) == []


def test_what_is_there_is_replaced_only_by_force(bucket) -> None:
    base, system = bucket
    system.pipe("bucket/a", b"old")
    with pytest.raises(FileError, match="exists already"), new_object(f"{base}/a"):
        pytest.fail("the work must not begin")
    assert system.cat("bucket/a") == b"old"
    with new_object(f"{base}/a", force=True) as file:
        file.write(b"new")
    assert system.cat("bucket/a") == b"new"


def test_what_appears_meanwhile_is_not_replaced(bucket) -> None:
    base, system = bucket
    with pytest.raises(FileError, match="exists already"), new_object(f"{base}/a"):
        system.pipe("bucket/a", b"theirs")
    assert system.cat("bucket/a") == b"theirs"


def test_web_is_for_reading() -> None:
    with pytest.raises(FileError, match="cannot be written to"), new_object("https://host/a?key=secret") as _:
        pass


def test_reading_and_seeking(bucket) -> None:
    base, system = bucket
    system.pipe("bucket/a", DATA)
    for ahead in (True, False):
        with open_url(f"{base}/a", ahead=ahead) as file:
            assert file.seek(-3, io.SEEK_END) == len(DATA) - 3
            assert file.read() == DATA[-3:]
            assert file.seek(100) == 100
            assert file.read(300) == DATA[100:400]
    assert remote.read_range(f"{base}/a", 5, 10) == DATA[5:15]
    with pytest.raises(FileError, match="shorter"):
        remote.read_range(f"{base}/a", len(DATA) - 5, 10)


def test_files_in_folders_and_of_patterns(bucket) -> None:
    base, system = bucket
    for name in ("a.txt", "in/b.txt", "in/deep/c.txt", "in/deep/d.log"):
        system.pipe(f"bucket/{name}", name.encode())
    assert [file.below for file in remote.find(f"{base}/in/**/*.txt")] == ["b.txt", "deep/c.txt"]
    assert remote.find(f"{base}/in") == [
        Found(f"{base}/in/b.txt", "b.txt", 8),
        Found(f"{base}/in/deep/c.txt", "deep/c.txt", 13),
        Found(f"{base}/in/deep/d.log", "deep/d.log", 13),
    ]
    assert [file.url for file in remote.find(f"{base}/i*/*.txt")] == [f"{base}/in/b.txt"]
    assert remote.is_folder(f"{base}/in")
    assert not remote.is_folder(f"{base}/a.txt")


def test_status(bucket) -> None:
    base, system = bucket
    assert remote.status(f"{base}/a") is None
    system.pipe("bucket/a", DATA)
    first = remote.status(f"{base}/a")
    assert first.size == len(DATA)
    system.pipe("bucket/b", b"")
    assert remote.status(f"{base}/b").modified >= first.modified > 1e9


def test_secrets_are_not_shown() -> None:
    with pytest.raises(FileError) as caught, open_url("nosuch://user:secret@host/a?key=secret"):
        pass
    assert caught.value.filename == "nosuch://host/a"
    assert "secret" not in str(caught.value)


def test_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(FileError, match=r"llmzip\[remote\]"), open_url("s3://bucket/a.txt"):
        pass
