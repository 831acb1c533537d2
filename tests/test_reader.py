"""The reader: archives from files and pipes, and what it refuses."""

from __future__ import annotations

import io
import tracemalloc

import pytest
from archives import DIGEST, Pipe, compress, decompress, read, sealed, write
from texts import noise, words

import llmzip
from llmzip.container.format import (
    MAX_SIZE,
    START,
    SYNC,
    pack_varint,
)
from llmzip.container.reader import Reader, scan
from llmzip.container.salvage import Salvager
from llmzip.errors import ChecksumError, FormatError, LlmzipError, SalvageError, TruncatedError


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


def padded(archive: bytes, block: int) -> bytes:
    return archive + bytes(-len(archive) % block)


@pytest.mark.parametrize("block", [512, 10_240, 1 << 20])
def test_zeros_that_fill_a_block_are_passed_over_everywhere(block):
    archive = padded(write(b"hello", b"world"), block)
    assert read(archive) == [b"hello", b"world"]
    assert b"".join(frame.payload for frame in Reader(Pipe(archive))) == b"helloworld"
    assert len(list(scan(io.BytesIO(archive)))) == 2
    assert b"".join(frame.payload for frame in Salvager(io.BytesIO(archive))) == b"helloworld"
    file = llmzip.open(io.BytesIO(archive))
    assert file.seek(0, 2) == 10
    file.seek(3)
    assert file.read() == b"loworld"
    assert llmzip.archive_info(io.BytesIO(archive)).frames == 2


BLOCK = padded(write(b"hello"), 512)


@pytest.mark.parametrize(
    "archive",
    [write(b"hello") + b"\0", BLOCK + b"\0", BLOCK[:-2] + b"x\0", BLOCK + bytes(1 << 20), BLOCK + write(b"x")],
    ids=["no block", "more than a block", "not zeros only", "very long", "an archive after them"],
)
def test_other_zeros_are_refused(archive):
    """They may stand where more archives were."""
    for scanned in (
        read,
        lambda data: list(scan(io.BytesIO(data))),
        lambda data: llmzip.open(io.BytesIO(data)).seek(1),
    ):
        with pytest.raises(FormatError, match="something else follows"):
            scanned(archive)
    with pytest.raises(SalvageError, match="belong to no frame"):
        list(Salvager(io.BytesIO(archive)))
