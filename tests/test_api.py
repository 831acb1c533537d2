import bz2
import importlib
import io
import itertools
import os
import pickle

import fsspec
import fsspec.compression
import pandas
import pytest
from test_stream import Pipe
from texts import HARD, noise, words

import llmzip
from llmzip.api import stream as codec
from llmzip.container import index
from llmzip.container.reader import scan

FRAME = 1024


@pytest.fixture(autouse=True)
def small_frames(monkeypatch):
    monkeypatch.setattr(codec, "FRAME_BYTES", FRAME)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # one thread: nothing here is about several


@pytest.fixture
def tiny(tiny_file):
    return str(tiny_file)


@pytest.fixture
def archive(tiny):
    return llmzip.compress(TEXT, model=tiny)


@pytest.fixture
def decoded(monkeypatch):
    """The numbers of the frames that have been decoded."""
    numbers = []
    decode = codec.FrameDecoder.decode

    def count(decoder, frame):
        numbers.append(frame.header.number)
        return decode(decoder, frame)

    monkeypatch.setattr(codec.FrameDecoder, "decode", count)
    return numbers


TEXT = words(1500)[: 5 * FRAME + 100]  # six frames


# Errors


def test_errors_are_caught_as_those_of_gzip_and_as_ones_of_llmzip(archive):
    for data, kinds in [
        (b"plain text", (llmzip.FormatError, OSError)),
        (archive[:-1], (llmzip.TruncatedError, EOFError)),
        (archive[:600] + b"?" + archive[601:], (OSError, llmzip.LlmzipError)),
    ]:
        for kind in kinds:
            with pytest.raises(kind):
                llmzip.decompress(data)


def test_errors_survive_pickling():
    for error in (llmzip.FormatError("a"), llmzip.TruncatedError("b"), llmzip.FileError("name", "c")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - what was just made
        assert (type(again), str(again)) == (type(error), str(error))


# Incremental


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("piece", [1, 999, FRAME, 1 << 20])
def test_pieces_make_the_archive_of_the_whole(tiny, kind, piece):
    data = HARD[kind][: 3 * FRAME]
    compressor = llmzip.Compressor(model=tiny)
    packed = b"".join(compressor.compress(data[i : i + piece]) for i in range(0, len(data), piece))
    packed += compressor.flush()
    assert packed == llmzip.compress(data, model=tiny)
    decompressor = llmzip.Decompressor()
    parts = []
    for i in range(0, len(packed), piece):
        assert decompressor.needs_input
        assert not decompressor.eof
        parts.append(decompressor.decompress(packed[i : i + piece]))
    assert b"".join(parts) == data
    assert decompressor.eof
    assert not decompressor.needs_input
    assert decompressor.unused_data == b""


def test_a_flushed_compressor_is_finished(tiny):
    compressor = llmzip.Compressor(model=tiny)
    compressor.flush()
    for call in (compressor.flush, lambda: compressor.compress(b"x")):
        with pytest.raises(ValueError, match="flushed"):
            call()


@pytest.mark.parametrize("limit", [1000, FRAME, 10 * FRAME])
def test_a_decompressor_returns_no_more_than_it_is_asked_for(archive, limit):
    decompressor = llmzip.Decompressor()
    assert decompressor.decompress(archive + b"rest", 0) == b""
    content = b""
    while not decompressor.eof:
        assert not decompressor.needs_input
        part = decompressor.decompress(b"", limit)
        assert len(part) <= limit
        content += part
    assert content == TEXT
    assert decompressor.unused_data == b"rest"
    with pytest.raises(EOFError):
        decompressor.decompress(b"")


@pytest.mark.parametrize("data", [TEXT, b"short", b""], ids=["long", "short", "empty"])
def test_a_decompressor_stops_at_the_end_of_its_archive(tiny, data):
    archive = llmzip.compress(data, model=tiny)
    for rest in (b"garbage", archive, bytes(3_000_000)):
        decompressor = llmzip.Decompressor()
        assert decompressor.decompress(archive + rest) == data
        assert decompressor.eof
        assert decompressor.unused_data == rest


def test_data_after_the_end_is_kept_while_content_waits(archive):
    decompressor = llmzip.Decompressor()
    content = decompressor.decompress(archive, len(TEXT) - 10)
    content += decompressor.decompress(b"one", 4)
    content += decompressor.decompress(b"two", 100)
    assert content == TEXT
    decompressor.decompress(b"") if not decompressor.eof else None
    assert decompressor.unused_data == b"onetwo"


def feed(decompressor, data, piece):
    for i in range(0, len(data), piece):
        decompressor.decompress(data[i : i + piece])


@pytest.mark.parametrize("piece", [1, 500, 1 << 20])
def test_a_decompressor_finds_damage(archive, piece):
    for damaged in (b"plain text", archive[:600] + b"?" + archive[601:], archive[:-30] + b"?" + archive[-29:]):
        decompressor = llmzip.Decompressor()
        with pytest.raises((llmzip.FormatError, llmzip.ChecksumError)):
            feed(decompressor, damaged, piece)
    decompressor = llmzip.Decompressor()
    feed(decompressor, archive[:-1], piece)
    assert not decompressor.eof


# What is in it


@pytest.mark.usefixtures("tiny")
def test_frame_info(archive):
    info = llmzip.get_frame_info(archive[:1000])
    assert (info.decompressed_size, info.last, info.format_version) == (FRAME, False, 0)
    assert info.model == archive[5:13].hex()
    assert llmzip.get_frame_info(llmzip.compress(b"x")).lanes == 0
    with pytest.raises(llmzip.FormatError, match="gzip"):
        llmzip.get_frame_info(b"\x1f\x8b" + bytes(20))
    with pytest.raises(llmzip.TruncatedError):
        llmzip.get_frame_info(archive[:10])


def test_archive_info(tiny, archive):
    both = archive + llmzip.compress(noise(100), model=tiny)
    for stream in (io.BytesIO(both), Pipe(both)):
        info = llmzip.archive_info(stream)
        assert (info.decompressed_size, info.compressed_size) == (len(TEXT) + 100, len(both))
        assert info.frames == 7
        assert info.models == (archive[5:13].hex(),)
        assert 1e8 < info.memory < 1e9
    assert llmzip.archive_info(io.BytesIO(llmzip.compress(noise(100)))).models == ("none",)


# Files


@pytest.mark.parametrize("kind", HARD)
def test_files_round_trip(tiny, tmp_path, kind):
    path = tmp_path / "a.lz"
    with llmzip.open(path, "wb", model=tiny) as file:
        for i in range(0, len(HARD[kind]), 1000):
            file.write(HARD[kind][i : i + 1000])
        assert file.tell() == len(HARD[kind])
    assert path.read_bytes() == llmzip.compress(HARD[kind], model=tiny)
    with llmzip.open(path) as file:
        assert file.read() == HARD[kind]
        assert file.read() == b""


def test_text_mode(tiny, tmp_path):
    lines = ["Zażółć\n", "gęślą\n", "jaźń"]
    for encoding in ("utf-8", "utf-16-le", "latin2"):
        path = tmp_path / encoding
        with llmzip.open(path, "wt", encoding=encoding, model=tiny) as file:
            file.writelines(lines)
        with llmzip.open(path, "rt", encoding=encoding) as file:
            assert list(file) == lines
    assert llmzip.open(path, "rt", encoding="ascii", errors="replace", newline="").readline().endswith("\n")


def test_modes_of_opening(tiny, tmp_path):
    path = tmp_path / "a.lz"
    with llmzip.open(path, "x", model=tiny) as file:
        file.write(b"one ")
    with llmzip.open(path, "ab", model=tiny) as file:
        file.write(b"two")
    assert llmzip.open(path).read() == b"one two"
    with pytest.raises(FileExistsError):
        llmzip.open(path, "x", model=tiny)
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


def test_file_objects_are_left_open_unless_given_away(tiny, archive):
    for closefd in (False, True):
        below = io.BytesIO(archive)
        with llmzip.LlmzipFile(below, closefd=closefd) as file:
            assert file.read(10) == TEXT[:10]
        assert below.closed == closefd
        assert file.closed
    below = io.BytesIO()
    with llmzip.LlmzipFile(below, "w", model=tiny) as file:
        file.write(b"content")
    assert llmzip.decompress(below.getvalue()) == b"content"


def test_a_file_does_what_its_mode_allows_until_it_is_closed(tiny, archive):
    reading, writing = llmzip.open(io.BytesIO(archive)), llmzip.open(io.BytesIO(), "w", model=tiny)
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
def test_archives_one_after_another_read_as_one_and_garbage_is_an_error(tiny, archive, kind):
    second = llmzip.compress(b"and more", model=tiny)
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


# Random access


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


def test_the_list_of_frames_saves_reading_their_headers(archive):
    class Counting(io.BytesIO):
        reads = 0

        def read(self, size=-1):
            self.reads += 1
            return super().read(size)

    file = Counting(archive)
    assert index.Index(file).size == len(TEXT)
    assert file.reads == 3


@pytest.mark.parametrize("before", [0, 100, FRAME + 1, 2 * FRAME])
def test_reading_goes_on_after_a_seek_to_the_same_place(archive, before):
    file = llmzip.open(io.BytesIO(archive))
    got = file.read(before)
    assert file.seek(0, io.SEEK_CUR) == before
    assert got + file.read() == TEXT


@pytest.mark.parametrize("joined", [False, True])
def test_random_places(tiny, joined):
    parts = [TEXT, b"", b"short", noise(2 * FRAME), TEXT] if joined else [TEXT]
    content = b"".join(parts)
    data = b"in front" + b"".join(llmzip.compress(part, model=tiny) for part in parts)
    below = io.BytesIO(data)
    below.seek(8)
    file = llmzip.open(below)
    for at in [*range(0, len(content), 3001), 0, len(content) - 1, len(content), len(content) + 9, FRAME, FRAME - 1]:
        assert file.seek(at) == min(at, len(content))
        assert file.read(300) == content[at : at + 300]
    assert file.seek(-5) == 0
    assert file.read() == content


def test_a_damaged_frame_does_not_keep_from_reading_others(archive):
    damaged = bytearray(archive)
    damaged[600] ^= 1
    file = llmzip.open(io.BytesIO(bytes(damaged)))
    with pytest.raises(llmzip.LlmzipError):
        file.read()
    file.seek(4 * FRAME)
    assert file.read() == TEXT[4 * FRAME :]


def places(frames):
    """Return the frames and where they begin."""
    return list(zip(frames, itertools.accumulate((f.stored_size for f in frames), initial=0), strict=False))


def test_a_list_of_frames_that_lies_is_found_out(tiny, archive):
    # The frames of another archive under this one's list.
    other = llmzip.compress(words(1500, 7)[: len(TEXT)], model=tiny)
    start = archive.index(b"\xf8LZ\xf6")
    mixed = other[: other.index(b"\xf8LZ\xf6")] + archive[start:]
    file = llmzip.open(io.BytesIO(mixed))
    with pytest.raises(llmzip.LlmzipError):
        file.read()
    listed = list(scan(io.BytesIO(archive)))
    swapped = b"".join(
        archive[at : at + frame.stored_size] for frame, at in [(listed[0], 0), *reversed(places(listed)[1:])]
    )
    file = llmzip.open(io.BytesIO(swapped + archive[start:]))
    file.seek(2 * FRAME)
    with pytest.raises(llmzip.LlmzipError):
        file.read(1)


def test_pipes_cannot_seek(archive):
    file = llmzip.open(Pipe(archive))
    assert not file.seekable()
    with pytest.raises(io.UnsupportedOperation):
        file.seek(3)
    assert file.read() == TEXT


# Other libraries


@pytest.fixture
def registered(fsspec_tables):  # noqa: ARG001 - it undoes the registration
    llmzip.register_fsspec()
    llmzip.register_fsspec()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("compression", ["llmzip", "infer"])
def test_fsspec_and_pandas(tiny, tmp_path, compression, monkeypatch):
    monkeypatch.setattr(importlib.import_module("llmzip.model.registry"), "DEFAULT", tiny)
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


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_whatever_holds_bytes_is_taken(kind):
    data = kind(TEXT)
    archive = kind(llmzip.compress(data, threads=1))
    assert llmzip.decompress(archive, threads=1) == TEXT
    assert llmzip.get_frame_info(archive).decompressed_size == FRAME
    compressor = llmzip.Compressor(threads=1)
    assert compressor.compress(data) + compressor.flush() == archive
    assert llmzip.Decompressor(threads=1).decompress(archive) == TEXT


@pytest.mark.parametrize("data", [TEXT, noise(300)], ids=["without a model", "stored"])
def test_a_model_that_is_named_must_be_there(data):
    archive = llmzip.compress(data, model="none")
    assert llmzip.decompress(archive, model="none") == data
    with pytest.raises(llmzip.ModelError, match="no model called nosuch"):
        llmzip.decompress(archive, model="nosuch")
