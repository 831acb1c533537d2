"""Frames that are coded at the same time, and their size."""

from __future__ import annotations

import io
import os
import threading

import pytest
from texts import words

import llmzip
from llmzip import cli
from llmzip.api import frames, stream
from llmzip.container.reader import scan
from llmzip.threads import in_order

FRAME = 2000
TEXT = words(3000)[: 7 * FRAME + 100]


@pytest.fixture
def four_cores(monkeypatch):
    """A machine with four cores, and small frames."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(stream, "FRAME_BYTES", FRAME)


@pytest.mark.usefixtures("four_cores", "tiny_file")
@pytest.mark.parametrize("model", ["none", "tiny"])
def test_bytes_and_order_do_not_depend_on_how_many_are_coded_at_once(monkeypatch, model):
    counts = set()
    shares = frames.Shares.__init__

    def record(self, *args, **options):
        shares(self, *args, **options)
        counts.add(self.count)

    monkeypatch.setattr(frames.Shares, "__init__", record)
    reported = []
    archives = set()
    for threads in (1, 2, 3, 4, 9):
        out = io.BytesIO()
        llmzip.compress_stream(io.BytesIO(TEXT), out, model=model, threads=threads, progress=reported.append)
        archives.add(out.getvalue())
        back = io.BytesIO()
        llmzip.decompress_stream(io.BytesIO(out.getvalue()), back, threads=threads, progress=reported.append)
        assert back.getvalue() == TEXT
    assert len(archives) == 1
    assert sum(reported) == 10 * len(TEXT)
    assert counts == {1, 2, 3, 4, 9}


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize("how", ["payload", "cut"])
def test_what_comes_before_damage_is_written(tiny_name, how):
    archive = bytearray(llmzip.compress(TEXT, model=tiny_name))
    starts = [0]
    for frame in scan(io.BytesIO(archive)):
        starts.append(starts[-1] + frame.stored_size)
    if how == "payload":
        archive[starts[5] - 3] ^= 255
    else:
        del archive[starts[5] - 3 :]
    out = io.BytesIO()
    with pytest.raises(llmzip.LlmzipError):
        llmzip.decompress_stream(io.BytesIO(archive), out)
    assert out.getvalue() == TEXT[: 4 * FRAME]


def test_memory_bounds_how_many_are_coded_at_once(monkeypatch):
    need = frames.layout.needed(FRAME, model=frames.layout.MODEL_BYTES) - frames.layout.PROGRAM_BYTES
    monkeypatch.setattr(frames, "MEMORY_AT_ONCE", 3 * need)
    shares = frames.Shares(FRAME, model=frames.layout.MODEL_BYTES, threads=8)
    assert (shares.count, shares.threads) == (3, 2)
    monkeypatch.setattr(frames, "MEMORY_AT_ONCE", need // 2)
    assert (frames.Shares(FRAME, model=frames.layout.MODEL_BYTES, threads=8).count, shares.threads) == (1, 2)


def test_a_frame_that_is_larger_waits_for_room(monkeypatch):
    """Frames of a hostile archive may grow after the first."""
    need = frames.layout.needed(FRAME, model=0) - frames.layout.PROGRAM_BYTES
    monkeypatch.setattr(frames, "MEMORY_AT_ONCE", 2 * need)
    shares = frames.Shares(FRAME, model=0, threads=2)
    order = []

    def large():
        with shares.memory(1 << 26):  # more than there is: alone
            order.append("large")

    with shares.memory(FRAME):
        waiting = threading.Thread(target=large)
        waiting.start()
        waiting.join(0.2)
        order.append("small")
    waiting.join()
    assert order == ["small", "large"]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_before_an_error_come_first(count):
    def calls():
        for i in range(7):
            yield lambda i=i: i
        raise ValueError("no more")

    results = in_order(calls(), count)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="no more"):
        next(results)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_result_follows_that_of_a_failing_call(count):
    results = in_order([lambda i=i: 1 // (i - 3) for i in range(9)], count)
    assert [next(results) for _ in range(3)] == [-1, -1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("size", [1 << 20, 3 << 20])
def test_the_caller_chooses_the_size(size):
    content = bytes(4 << 20)
    out = io.BytesIO()
    llmzip.compress_stream(io.BytesIO(content), out, model="none", frame_size=size)
    sizes = [frame.header.size for frame in scan(io.BytesIO(out.getvalue()))]
    assert sizes == [size] * (len(content) // size) + [len(content) % size] * (len(content) % size > 0)
    compressor = llmzip.Compressor(model="none", frame_size=size)
    assert compressor.compress(content) + compressor.flush() == out.getvalue()
    written = io.BytesIO()
    with llmzip.open(written, "wb", model="none", frame_size=size) as file:
        file.write(content)
    assert written.getvalue() == out.getvalue()


@pytest.mark.parametrize("size", [0, -1, 1000, (1 << 26) + 1])
def test_other_sizes_are_refused(size):
    for call in (
        lambda: llmzip.compress_stream(io.BytesIO(b"x"), io.BytesIO(), frame_size=size),
        lambda: llmzip.Compressor(frame_size=size),
    ):
        with pytest.raises(ValueError, match="a frame holds"):
            call()


@pytest.mark.parametrize(
    ("size", "code"), [("1M", 0), ("64MiB", 0), ("1048576", 0), ("65M", 2), ("1000K", 2), ("x", 2)]
)
def test_sizes_on_the_command_line(tmp_path, capfd, size, code):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 3000)
    with pytest.raises(SystemExit) as info:
        cli.cli(["compress", "-m", "none", "--frame-size", size, str(path)], prog_name="llmzip")
    assert info.value.code == code
    assert ("is not" in capfd.readouterr().err) == (code == 2)
