"""An archive of coded and stored frames to damage, and what to do with it."""

from __future__ import annotations

import io
import random
from typing import NamedTuple

import helpers
from texts import noise, words

from llmzip.container.reader import scan
from llmzip.errors import LlmzipError

FRAME_BYTES = 300


# Text, noise, text: coded and stored frames, the last one short.
ORIGINAL = words(150)[:600] + noise(300) + words(150, 1)[:850]


FRAMES = [ORIGINAL[i : i + FRAME_BYTES] for i in range(0, len(ORIGINAL), FRAME_BYTES)]


OTHER = words(400, 2)[: len(ORIGINAL)]


def compress(codec, data):
    out = io.BytesIO()
    codec.compress_stream(io.BytesIO(data), out, model="test" if codec is helpers else "tiny", threads=1)
    return out.getvalue()


def decompress(codec, archive, **options):
    out = io.BytesIO()
    codec.decompress_stream(io.BytesIO(archive), out, threads=1, **options)
    return out.getvalue()


def salvage(codec, archive):
    """Return what is left, and what is said of the rest; the archive may name no model any more."""
    out = io.BytesIO()
    model = None if codec is helpers else "tiny"
    try:
        codec.decompress_stream(io.BytesIO(archive), out, threads=1, model=model, keep_going=True)
    except LlmzipError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


def refused(codec, archive, original=ORIGINAL):
    """Tell whether damage was found; if it was not, the content is the original's."""
    try:
        content = decompress(codec, archive)
    except LlmzipError as error:
        text = str(error)
    else:
        assert content == original
        return False
    assert text
    assert "\n" not in text
    return True


def some(codec, places):
    """Return all places for the quick codec, and a sample for the real one."""
    places = sorted(places)
    return places if codec is helpers else random.Random(0).sample(places, min(len(places), 60))


class Parts(NamedTuple):
    frames: list[bytes]
    heads: list[int]  # bytes before the payload
    trailer: bytes


def parts_of(archive):
    """Cut an archive into its frames and its trailer."""
    frames, heads, at = [], [], 0
    for frame in scan(io.BytesIO(archive)):
        frames.append(archive[at : at + frame.stored_size])
        heads.append(frame.head_size)
        at += frame.stored_size
    return Parts(frames, heads, archive[at:])
