"""File objects: modes, ways of reading, seeking."""

from __future__ import annotations

import io

import pytest
from archives import Pipe
from frames import FRAME, TEXT
from texts import HARD

import llmzip

pytestmark = pytest.mark.usefixtures("small_frames")


@pytest.mark.parametrize("kind", HARD)
def test_files_round_trip(tiny_name, tmp_path, kind):
    path = tmp_path / "a.lz"
    with llmzip.open(path, "wb", model=tiny_name) as file:
        for i in range(0, len(HARD[kind]), 1000):
            file.write(HARD[kind][i : i + 1000])
        assert file.tell() == len(HARD[kind])
    assert path.read_bytes() == llmzip.compress(HARD[kind], model=tiny_name)
    with llmzip.open(path) as file:
        assert file.read() == HARD[kind]
        assert file.read() == b""


def test_text_mode(tiny_name, tmp_path):
    lines = ["Zażółć\n", "gęślą\n", "jaźń"]
    for encoding in ("utf-8", "utf-16-le", "latin2"):
        path = tmp_path / encoding
        with llmzip.open(path, "wt", encoding=encoding, model=tiny_name) as file:
            file.writelines(lines)
        with llmzip.open(path, "rt", encoding=encoding) as file:
            assert list(file) == lines
    assert llmzip.open(path, "rt", encoding="ascii", errors="replace", newline="").readline().endswith("\n")


def test_modes_of_opening(tiny_name, tmp_path):
    path = tmp_path / "a.lz"
    with llmzip.open(path, "x", model=tiny_name) as file:
        file.write(b"one ")
    with llmzip.open(path, "ab", model=tiny_name) as file:
        file.write(b"two")
    assert llmzip.open(path).read() == b"one two"
    with pytest.raises(FileExistsError):
        llmzip.open(path, "x", model=tiny_name)
    with pytest.raises(FileNotFoundError):
        llmzip.open(tmp_path / "missing")
    for mode in ("", "rw", "rbt", "z", "rbb"):
        with pytest.raises(ValueError, match="invalid mode"):
            llmzip.open(path, mode)
    with pytest.raises(ValueError, match="text mode"):
        llmzip.open(path, "rb", encoding="utf-8")
    with pytest.raises(TypeError):
        llmzip.open(17)


def test_a_missing_model_does_not_empty_the_file(tmp_path):
    path = tmp_path / "a.lz"
    path.write_bytes(b"precious")
    with pytest.raises(llmzip.ModelError):
        llmzip.open(path, "w", model="nosuch")
    assert path.read_bytes() == b"precious"


def test_file_objects_are_left_open_unless_given_away(tiny_name, archive):
    for closefd in (False, True):
        below = io.BytesIO(archive)
        with llmzip.LlmzipFile(below, closefd=closefd) as file:
            assert file.read(10) == TEXT[:10]
        assert below.closed == closefd
        assert file.closed
    below = io.BytesIO()
    with llmzip.LlmzipFile(below, "w", model=tiny_name) as file:
        file.write(b"content")
    assert llmzip.decompress(below.getvalue()) == b"content"


def test_a_file_does_what_its_mode_allows_until_it_is_closed(tiny_name, archive):
    reading, writing = llmzip.open(io.BytesIO(archive)), llmzip.open(io.BytesIO(), "w", model=tiny_name)
    assert (reading.readable(), reading.writable(), reading.seekable(), reading.mode) == (True, False, True, "rb")
    assert (writing.readable(), writing.writable(), writing.seekable(), writing.mode) == (False, True, False, "wb")
    for call in (lambda: reading.write(b""), writing.read, lambda: writing.seek(0), writing.peek):
        with pytest.raises(io.UnsupportedOperation):
            call()
    for file in (reading, writing):
        file.close()
        file.close()
        for call in (file.read, file.tell, file.seekable, lambda file=file: file.write(b"")):
            with pytest.raises(ValueError, match="closed"):
                call()


def test_all_ways_of_reading(archive):
    with llmzip.open(io.BytesIO(archive)) as file:
        assert TEXT.startswith(file.peek(10))
        buffer = bytearray(5000)
        assert file.readinto(buffer) == 5000
        got = bytes(buffer) + file.read1(100) + file.readline()
        got += b"".join(file)
    assert got == TEXT


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
def test_archives_one_after_another_read_as_one_and_garbage_is_an_error(tiny_name, archive, kind):
    second = llmzip.compress(b"and more", model=tiny_name)
    assert llmzip.open(kind(archive + second + archive)).read() == TEXT + b"and more" + TEXT
    for rest in (b"garbage", bytes(10)):
        file = llmzip.open(kind(archive + rest))
        assert file.read(len(TEXT)) == TEXT
        for _ in range(2):
            with pytest.raises(llmzip.FormatError, match="something else follows"):
                file.read()


def test_damage_does_not_read_as_the_end(archive):
    for damaged in (archive[:600] + b"?" + archive[601:], archive[: len(archive) // 2]):
        file = llmzip.open(io.BytesIO(damaged))
        for _ in range(3):
            with pytest.raises(llmzip.LlmzipError):
                file.read()


def test_seek_decodes_only_the_frames_that_are_read(archive, decoded):
    with llmzip.open(io.BytesIO(archive)) as file:
        assert file.seek(3 * FRAME + 5) == 3 * FRAME + 5
        assert file.seek(-20, io.SEEK_END) == len(TEXT) - 20
        assert file.read() == TEXT[-20:]
        assert decoded == [6]
        file.seek(FRAME - 2)
        assert file.read(1) == TEXT[FRAME - 2 : FRAME - 1]
        assert (file.tell(), decoded) == (FRAME - 1, [6, 1])
        assert file.read(3) == TEXT[FRAME - 1 : FRAME + 2]
        assert decoded == [6, 1, 2]


@pytest.mark.parametrize("before", [0, 100, FRAME + 1, 2 * FRAME])
def test_reading_goes_on_after_a_seek_to_the_same_place(archive, before):
    file = llmzip.open(io.BytesIO(archive))
    got = file.read(before)
    assert file.seek(0, io.SEEK_CUR) == before
    assert got + file.read() == TEXT


def test_pipes_cannot_seek(archive):
    file = llmzip.open(Pipe(archive))
    assert not file.seekable()
    with pytest.raises(io.UnsupportedOperation):
        file.seek(3)
    assert file.read() == TEXT


@pytest.mark.parametrize("whence", [3, 4, -1])
def test_a_place_that_is_no_place_is_a_value_error(archive, whence):
    with pytest.raises(ValueError, match="whence"):
        llmzip.open(io.BytesIO(archive)).seek(1, whence)
