"""Archives of stored frames, made and read in a line."""

from __future__ import annotations

import io
import struct
import zlib

import helpers

from llmzip.container.format import (
    Writer,
)
from llmzip.container.reader import Reader

DIGEST = bytes(range(32))


class Pipe(io.RawIOBase):
    """Cannot seek, and gives a few bytes at a time."""

    def __init__(self, data: bytes):
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._data.readinto(memoryview(buffer)[:7])


def write(*frames, digest=DIGEST, number=None):
    """Return an archive of frames, each its content or (content, payload, lane_bytes)."""
    out = io.BytesIO()
    writer = Writer(out, digest, number)
    for i, frame in enumerate(frames, 1):
        content, *coded = (frame,) if isinstance(frame, bytes) else frame
        writer.write(content, last=i == len(frames), **dict(zip(("payload", "lane_bytes"), coded, strict=False)))
    return out.getvalue()


def read(archive):
    """Return the contents of stored frames."""
    frames = list(Reader(io.BytesIO(archive)))
    for frame in frames:
        frame.verify(frame.payload)
    return [frame.payload for frame in frames]


def compress(data, **options):
    out = io.BytesIO()
    helpers.compress_stream(io.BytesIO(data), out, **options)
    return out.getvalue()


def decompress(archive):
    out = io.BytesIO()
    helpers.decompress_stream(io.BytesIO(archive), out)
    return out.getvalue()


def sealed(head: bytes, payload: bytes = b"") -> bytes:
    """Complete a header with a checksum of anything and the right check."""
    head += bytes(4)
    return head + struct.pack("<H", zlib.crc32(head) & 0xFFFF) + payload
