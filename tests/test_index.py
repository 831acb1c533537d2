"""The index of frames: random access, and lists of frames that are wrong."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import pytest
from frames import FRAME, TEXT
from texts import noise, words

import llmzip
from llmzip.container import index
from llmzip.container.format import MAX_HEAD, Trailer
from llmzip.container.reader import scan

pytestmark = pytest.mark.usefixtures("small_frames")


def test_heads_are_read_and_payloads_are_not():
    class Counting(io.BytesIO):
        taken = 0

        def read(self, size=-1):
            data = super().read(size)
            self.taken += len(data)
            return data

    content = noise(100 * FRAME)
    file = Counting(llmzip.compress(content, model="none"))
    assert index.Index(file).size == len(content)
    assert file.taken < 101 * (MAX_HEAD + 20)


@pytest.mark.parametrize("joined", [False, True])
def test_random_places(tiny_name, joined):
    parts = [TEXT, b"", b"short", noise(2 * FRAME), TEXT] if joined else [TEXT]
    content = b"".join(parts)
    data = b"in front" + b"".join(llmzip.compress(part, model=tiny_name) for part in parts)
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


def test_frames_in_another_order_or_of_another_archive_are_found_out(tiny_name, archive):
    other = llmzip.compress(words(1500, 7)[: len(TEXT)], model=tiny_name)
    start = archive.index(b"\xf8LZ\xf6")
    mixed = other[: other.index(b"\xf8LZ\xf6")] + archive[start:]
    listed = list(scan(io.BytesIO(archive)))
    swapped = b"".join(
        archive[at : at + frame.stored_size] for frame, at in [(listed[0], 0), *reversed(places(listed)[1:])]
    )
    for damaged in (mixed, swapped + archive[start:]):
        with pytest.raises(llmzip.LlmzipError):
            llmzip.open(io.BytesIO(damaged)).seek(2 * FRAME)


def forged(archive, change):
    """Return the archive with a list of frames in which `change` was made, and all checksums right."""
    trailer = Trailer()
    for number, frame in enumerate(scan(io.BytesIO(archive))):
        trailer.add(change(number, frame))
    return archive[: archive.index(b"\xf8LZ\xf6")] + trailer.pack()


def with_size(frame, size):
    return replace(frame, header=replace(frame.header, size=size, lane_bytes=(size,) * bool(frame.header.lane_bytes)))


@pytest.mark.parametrize(
    "change",
    [
        lambda i, frame: with_size(frame, FRAME + 7 * (i == 1) - 7 * (i == 2)) if i in (1, 2) else frame,
        lambda i, frame: with_size(frame, FRAME + 1) if i == 0 else frame,
        lambda i, frame: replace(frame, checksum=frame.checksum ^ (i == 3)),
        lambda i, frame: replace(frame, head=frame.head + b"x" * (i == 1)),
    ],
    ids=["two sizes", "one size and the total", "chain", "place in the file"],
)
def test_a_list_of_frames_that_lies_is_an_error(archive, change):
    assert forged(archive, lambda _, frame: frame) == archive
    lying = forged(archive, change)
    for at in (1, 2 * FRAME, 4 * FRAME):
        with pytest.raises(llmzip.LlmzipError):
            llmzip.open(io.BytesIO(lying)).seek(at)


def test_a_frame_that_changes_while_the_file_is_open_is_an_error(archive):
    file = io.BytesIO(archive)
    content = llmzip.open(file)
    content.seek(4 * FRAME)
    at = [start for _, start in places(list(scan(io.BytesIO(archive))))][4]
    file.getbuffer()[at + 6] ^= 1
    with pytest.raises(llmzip.LlmzipError):
        content.read(1)
