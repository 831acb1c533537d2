"""The reader: archives from files and pipes, and what it refuses."""

from __future__ import annotations

import io
import tracemalloc

import pytest
from archives import DIGEST, Pipe, compress, decompress, sealed, write
from texts import noise, words

from llmzip.container.format import (
    MAX_SIZE,
    START,
    SYNC,
    pack_varint,
)
from llmzip.container.reader import Reader, scan
from llmzip.errors import ChecksumError, LlmzipError, TruncatedError


def test_archives_one_after_another():
    parts = [noise(2500), b"", words(700), b"x"]
    assert decompress(b"".join(map(compress, parts))) == b"".join(parts)


def test_stored_frames_are_verified_without_their_model():
    archive = write(noise(50), (b"aaaa", b"a", [4]))
    first, second = Reader(io.BytesIO(archive))
    first.verify(noise(50))
    second.verify(b"aaaa", DIGEST)
    with pytest.raises(ChecksumError):
        second.verify(b"aaaa", bytes(32))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\xf8", "incomplete"),
        (START, "incomplete"),
        (b"hello, world", "not an llmzip archive$"),
        (b"LZIP\x01\x0c", "a lzip file"),
        (b"\x1f\x8b\x08", "a gzip file"),
        (b"\xfd7zXZ\0", "a xz file"),
        (b"\x28\xb5\x2f\xfd$", "a zstd file"),
        (b"BZh91AY", "a bzip2 file"),
        (b"PK\x03\x04", "a zip file"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
        (b"\xf8LZ\x01", "version 1"),
        (SYNC + b"\x02", "beginning .* missing"),
    ],
)
def test_foreign_files_are_named(data, message):
    with pytest.raises(LlmzipError, match=message):
        list(Reader(io.BytesIO(data)))


@pytest.mark.parametrize(
    "data",
    [
        sealed(START + b"\0" + b"\1" + pack_varint(MAX_SIZE)),
        sealed(START + b"\1" + b"\3" + pack_varint(MAX_SIZE) * 2),
        sealed(START + b"\1" + b"\x33" + pack_varint(MAX_SIZE) * 2 + pack_varint(1) * 63),
    ],
)
def test_claims_allocate_nothing(data):
    for stream in (io.BytesIO(data), Pipe(data)):
        tracemalloc.start()
        with pytest.raises(TruncatedError):
            list(Reader(stream))
        with pytest.raises(TruncatedError):
            list(scan(io.BytesIO(data)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20


def test_a_pipe_without_data_has_not_ended():
    class Idle(Pipe):
        def read(self, size=-1):
            return super().read(size) or None

    with pytest.raises(BlockingIOError):
        list(Reader(Idle(write(b"content"))))
