"""The container format: varints, headers, frames, trailer, and the document that describes them."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import pytest
from archives import DIGEST, Pipe, read, sealed, write
from hypothesis import given
from hypothesis import strategies as st
from texts import noise

from llmzip.container.format import (
    MAX_HEAD,
    MAX_SIZE,
    MODEL,
    START,
    ArchiveHeader,
    Cursor,
    FrameHeader,
    pack_varint,
)
from llmzip.container.reader import Reader, scan
from llmzip.errors import FormatError, TruncatedError

DOCUMENT = Path(__file__).parents[1] / "docs" / "FORMAT.md"


@pytest.mark.parametrize(
    ("value", "data"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**63 - 1, "ff" * 8 + "7f")],
)
def test_varints(value, data):
    assert pack_varint(value).hex() == data
    assert Cursor(bytes.fromhex(data)).varint() == value


@pytest.mark.parametrize("data", ["8000", "ff00", "80808000", "ff" * 9 + "01", "80" * 9 + "01", "ff" * 20])
def test_varints_that_are_not_the_shortest_or_too_large(data):
    with pytest.raises(FormatError):
        Cursor(bytes.fromhex(data)).varint()


@given(st.binary(max_size=12))
def test_every_varint_is_malformed_truncated_or_the_only_form_of_its_value(data):
    cursor = Cursor(data)
    try:
        value = cursor.varint()
    except (FormatError, TruncatedError):
        return
    assert pack_varint(value) == data[: cursor.at]


def test_empty_file_is_one_stored_frame():
    archive = write(b"")
    assert archive[:7].hex() == "f84c5a000001" + "00"
    assert len(archive) == 13
    assert read(archive) == [b""]


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 1 << 20])
def test_a_stored_frame_costs_16_bytes_at_most_and_names_no_model(size):
    content = noise(size)
    archive = write(content)
    assert len(archive) <= size + 16
    assert archive[: len(START) + 1] == START + b"\0"
    assert read(archive) == [content]


def test_a_coded_kilobyte_costs_16_bytes_with_a_shipped_model():
    archive = write((bytes(1024), bytes(300), [1024]), number=1)
    assert len(archive) == 16 + 300
    assert archive[4] == 1


def test_another_model_is_named_by_eight_bytes():
    archive = write((bytes(1024), b"payload", [1024]))
    assert archive[4:13] == b"\xff" + DIGEST[:8]
    (frame,) = Reader(io.BytesIO(archive))
    assert frame.archive == ArchiveHeader(model_id=DIGEST[:8])


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.integers(0, 6), st.booleans()), min_size=1))
def test_what_is_written_is_read(plan):
    frames = []
    for content, lanes_log2, coded in plan:
        lanes = 1 << lanes_log2
        parts = [len(content) // lanes] * (lanes - 1)
        form = (content, content[::-1], [*parts, len(content) - sum(parts)])
        frames.append(form if coded else content)
    archive = write(*frames)
    for stream in (io.BytesIO(archive), io.BufferedReader(Pipe(archive)), Pipe(archive)):
        found = list(Reader(stream))
        assert len(found) == len(frames)
        for frame, form in zip(found, frames, strict=True):
            stored = isinstance(form, bytes)
            content = frame.payload if stored else frame.payload[::-1]
            assert content == (form if stored else form[0])
            assert list(frame.header.lane_bytes) == ([] if stored else form[2])
            frame.verify(content, DIGEST)
    bare = list(scan(io.BytesIO(archive)))
    assert [f.header for f in bare] == [f.header for f in found]
    assert {f.payload for f in bare} == {b""}
    assert [f.header for f in scan(Pipe(archive))] == [f.header for f in found]


def test_checksums_depend_on_content_model_header_and_number():
    def checksum(archive):
        return next(iter(scan(io.BytesIO(archive)))).checksum

    base = (b"aaaa", b"a", [4])
    variants = [
        write(base),
        write((b"aaab", b"a", [4])),
        write(base, digest=bytes(32)[:31] + b"\1"),
        write(base, number=1),
        write((b"aaaa", b"aa", [4])),
        write((b"aaaa", b"a", [3, 1])),
        write(base, base),
    ]
    assert len({checksum(archive) for archive in variants}) == len(variants)
    one, two = scan(io.BytesIO(variants[-1]))
    assert one.checksum != two.checksum


@pytest.mark.parametrize(
    "head",
    {
        "reserved bit": "80 01",
        "kind 2": "05 01",
        "kind 3": "07 01",
        "lanes of a stored frame": "09 01",
        "128 lanes": "3b 01 01",
        "size not canonical": "01 8000",
        "stored frame too large": "01 81808020",
        "empty frame that is not the last": "00 00",
        "empty coded frame": "03 00 00",
        "no payload": "03 01 00",
        "payload larger than the content": "03 01 02",
        "lanes larger than the content": "0b 05 01 06",
        "size of 2^63 - 1": "03 ffffffffffffffff7f 01",
    }.items(),
    ids=lambda pair: pair[0],
)
def test_headers_that_no_writer_writes(head):
    for archive in (START + b"\x01", START + b"\xff" + bytes(8)):
        data = sealed(archive + bytes.fromhex(head[1]), bytes(8))
        with pytest.raises(FormatError):
            list(Reader(io.BytesIO(data)))


def test_a_coded_frame_needs_a_model():
    data = sealed(START + b"\0" + bytes.fromhex("03 04 01"), b"x")
    with pytest.raises(FormatError, match="names none"):
        list(Reader(io.BytesIO(data)))


def test_the_writer_refuses_what_the_reader_would():
    for frame in (bytes(MAX_SIZE + 1), (b"aa", b"aaa", [2]), (b"aa", b"a", [3]), (b"aa", b"a", [1, 1, 0])):
        with pytest.raises(FormatError):
            write(frame)


def test_the_largest_header_fits_into_the_window():
    header = FrameHeader(1, True, MAX_SIZE, MAX_SIZE, MODEL, (MAX_SIZE // 64,) * 64)
    assert 13 + len(header.pack()) + 6 <= MAX_HEAD


def test_the_header_check_finds_every_flipped_bit():
    # The lower half of a CRC-32 need not: so for every position in the largest header there can be.
    zeros = bytes(MAX_HEAD)
    for at in range(MAX_HEAD):
        for bit in range(8):
            flipped = zeros[:at] + bytes([1 << bit]) + zeros[at + 1 :]
            assert (zlib.crc32(flipped) ^ zlib.crc32(zeros)) & 0xFFFF


def parse_as_documented(data: bytes) -> list[bytes]:
    """Return the contents of an archive of stored frames, read as docs/FORMAT.md says."""
    at = 0

    def take(size):
        nonlocal at
        at += size
        return data[at - size : at]

    def varint():
        value = shift = 0
        while True:
            (byte,) = take(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    contents, sizes, chain, last, begin = [], [], b"", False, 0
    assert take(4) == b"\xf8\x4c\x5a\x00"
    if take(1) == b"\xff":
        take(8)
    while not last:
        number = len(contents) + 1
        if number > 1:
            begin = at
            assert take(4) == b"\xf8\x4c\x5a\xf7"
            assert varint() == number
        (flags,) = take(1)
        assert flags in (0, 1)
        last, size = flags == 1, varint()
        head = data[begin:at]
        checksum = take(4)
        assert take(2) == struct.pack("<I", zlib.crc32(head + checksum))[:2]
        contents.append(take(size))
        covered = bytes(32) + head + struct.pack("<Q", number) + contents[-1]
        assert checksum == struct.pack("<I", zlib.crc32(covered))
        sizes += [size, at - begin]
        chain += checksum
    if len(contents) > 1:
        begin = at
        assert take(4) == b"\xf8\x4c\x5a\xf6"
        assert varint() == len(contents)
        assert [varint() for _ in sizes] == sizes
        assert varint() == sum(sizes[::2])
        assert take(4) == struct.pack("<I", zlib.crc32(chain))
        assert take(4) == struct.pack("<I", zlib.crc32(data[begin : at - 4]))
        assert take(4) == struct.pack("<I", at - 4 - begin)
        assert take(4) == b"\xf8\x4c\x5a\xf5"
    assert at == len(data)
    return contents


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5))
def test_archives_are_as_documented(contents):
    assert parse_as_documented(write(*contents)) == contents


def test_the_example_in_the_document():
    text = DOCUMENT.read_text()
    section = text[text.index("### Example") :].partition("\n## ")[0]
    rows = re.findall(r"^ {4}([0-9a-f]{2}(?: [0-9a-f]{2})*)(?: {2,}.*)?$", section, re.MULTILINE)
    archive = bytes.fromhex("".join(rows))
    assert archive == write(b"Hello, ", b"world!", digest=bytes(32))
    assert read(archive) == [b"Hello, ", b"world!"]
    assert parse_as_documented(archive) == [b"Hello, ", b"world!"]
