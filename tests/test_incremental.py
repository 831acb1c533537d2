"""Compressor and Decompressor: pieces in, pieces out."""

from __future__ import annotations

import importlib

import pytest
from frames import FRAME, TEXT
from texts import HARD, noise

import llmzip
from llmzip.container.peekable import PeekableStream

pytestmark = pytest.mark.usefixtures("small_frames")


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("piece", [1, 999, FRAME, 1 << 20])
def test_pieces_make_the_archive_of_the_whole(tiny_name, kind, piece):
    data = HARD[kind][: 3 * FRAME]
    compressor = llmzip.Compressor(model=tiny_name)
    packed = b"".join(compressor.compress(data[i : i + piece]) for i in range(0, len(data), piece))
    packed += compressor.flush()
    assert packed == llmzip.compress(data, model=tiny_name)
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


def test_a_flushed_compressor_is_finished(tiny_name):
    compressor = llmzip.Compressor(model=tiny_name)
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
def test_a_decompressor_stops_at_the_end_of_its_archive(tiny_name, data):
    archive = llmzip.compress(data, model=tiny_name)
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


@pytest.mark.parametrize("piece", [1, 100])
def test_small_pieces_are_not_copied_again_and_again(monkeypatch, piece):
    """Counted are the bytes that looking ahead copies."""
    copied = 0
    peek = PeekableStream.peek

    def count(source, size):
        nonlocal copied
        data = peek(source, size)
        copied += len(data)
        return data

    monkeypatch.setattr(PeekableStream, "peek", count)
    monkeypatch.setattr(importlib.import_module("llmzip.api.stream"), "FRAME_BYTES", 1 << 20)
    content = noise(300_000)
    archive = llmzip.compress(content)
    copied = 0
    decompressor = llmzip.Decompressor()
    parts = [decompressor.decompress(archive[i : i + piece]) for i in range(0, len(archive), piece)]
    assert b"".join(parts) == content
    assert decompressor.eof
    assert copied < 5 * len(archive)
