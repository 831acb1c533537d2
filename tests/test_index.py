"""The index of frames: random access, and lists of frames that are wrong."""

from __future__ import annotations

import io
import itertools

import pytest
from frames import FRAME, TEXT
from texts import noise, words

import llmzip
from llmzip.container import index
from llmzip.container.reader import scan

pytestmark = pytest.mark.usefixtures("small_frames")


def test_the_list_of_frames_saves_reading_their_headers(archive):
    class Counting(io.BytesIO):
        reads = 0

        def read(self, size=-1):
            self.reads += 1
            return super().read(size)

    file = Counting(archive)
    assert index.Index(file).size == len(TEXT)
    assert file.reads == 3


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


def test_a_list_of_frames_that_lies_is_found_out(tiny_name, archive):
    # The frames of another archive under this one's list.
    other = llmzip.compress(words(1500, 7)[: len(TEXT)], model=tiny_name)
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
