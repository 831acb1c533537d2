"""Limits that callers set, and claims of archives that are refused before anything is allocated."""

from __future__ import annotations

import io
import tracemalloc

import pytest
from archives import sealed
from frames import FRAME, TEXT

import llmzip
from llmzip import cli
from llmzip.container.format import BYTES, MODEL, ArchiveHeader, FrameHeader
from llmzip.mixing import layout


def claiming(size, payload_size, lanes=()):
    """Return an archive of one frame that claims `size` bytes; it is a model's if it has lanes."""
    header = FrameHeader(1, True, size, payload_size, MODEL if lanes else BYTES, lanes)
    return sealed(ArchiveHeader(4 if lanes else None).pack() + header.pack(), bytes(payload_size))


@pytest.mark.parametrize(
    "archive",
    [claiming(1 << 26, 20), claiming(1 << 24, 20), claiming(1 << 26, 20, (1 << 20,) * 64)],
    ids=["64 MiB", "16 MiB", "64 MiB with a model"],
)
def test_more_than_a_payload_can_hold_is_refused_at_once(archive):
    llmzip.decompress(llmzip.compress(b"warm up " * 20, model="default"))
    tracemalloc.start()
    for keep_going in (False, True):
        with pytest.raises(llmzip.LlmzipError, match=r"more content than its data can hold|nothing can be salvaged"):
            llmzip.decompress_stream(io.BytesIO(archive), io.BytesIO(), keep_going=keep_going)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("model", ["none", "default"])
@pytest.mark.parametrize("byte", [b"a", b"\0"])
def test_what_repeats_is_not_refused(model, byte):
    """The claim that comes nearest to the limit: a long run of one byte."""
    content = byte * 50_000
    assert llmzip.decompress(llmzip.compress(content, model=model)) == content


READERS = {
    "one shot": lambda archive, **limits: llmzip.decompress(archive, **limits),
    "stream": lambda archive, **limits: llmzip.decompress_stream(io.BytesIO(archive), io.BytesIO(), **limits),
    "salvage": lambda archive, **limits: llmzip.decompress_stream(
        io.BytesIO(archive), io.BytesIO(), keep_going=True, **limits
    ),
    "pieces": lambda archive, **limits: llmzip.Decompressor(**limits).decompress(archive),
    "file": lambda archive, **limits: llmzip.open(io.BytesIO(archive), **limits).read(),
}


@pytest.mark.parametrize("reader", READERS)
def test_memory(reader, archive):
    need = llmzip.archive_info(io.BytesIO(archive)).memory
    READERS[reader](archive, memlimit=need)
    with pytest.raises(llmzip.LimitError, match=f"takes about {need} bytes of memory, over the limit of {need - 1} "):
        READERS[reader](archive, memlimit=need - 1)


@pytest.mark.parametrize("reader", ["one shot", "stream", "salvage"])
def test_size_of_the_content(reader, archive, decoded):
    READERS[reader](archive, max_size=len(TEXT))
    decoded.clear()
    with pytest.raises(llmzip.LimitError, match="more than 2048 bytes"):
        READERS[reader](archive, max_size=2 * FRAME)
    assert decoded == [1, 2]


def test_stored_frames_take_little_memory():
    archive = llmzip.compress(b"x", model="none")
    assert llmzip.decompress(archive, memlimit=layout.PROGRAM_BYTES + 2) == b"x"


@pytest.mark.parametrize("command", ["decompress", "test"])
@pytest.mark.parametrize(
    ("size", "code", "message"),
    [
        ("1000", 1, "over the limit of 1000 (raise --memlimit)"),
        ("100K", 1, "over the limit of 102400 (raise --memlimit)"),
        ("100m", 1, "over the limit of 104857600 (raise --memlimit)"),
        ("0.1G", 2, "is not a size like 500M or 2G"),
        ("4GiB", 0, ""),
    ],
)
def test_the_command_line(archive, tmp_path, monkeypatch, capfd, command, size, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.lz").write_bytes(archive)
    with pytest.raises(SystemExit) as info:
        cli.cli([command, "-T1", "-M", size, "a.lz"], prog_name="llmzip")
    assert info.value.code == code
    assert message in capfd.readouterr().err
    assert (tmp_path / "a").exists() == (code == 0 and command == "decompress")
