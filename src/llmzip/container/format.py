"""The container: headers, frames, checksums and trailer of an archive, as in docs/FORMAT.md.

No byte of the content is interpreted here, and no model is needed. Writing knows which frame is the
last one when it writes it::

    writer = Writer(stream, model.digest, number_of_model)   # or Writer(stream): no model
    writer.write(content, last=False, payload=coded.payload, lane_bytes=coded.lane_bytes)
    writer.write(content, last=True)   # stored; the trailer follows by itself

`llmzip.container.reader` reads archives, `llmzip.container.salvage` what is left of damaged ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from llmzip.errors import ChecksumError, FormatError, TruncatedError

VERSION = 0
MAGIC = b"\xf8LZ"  # F8 occurs in no UTF-8 text
START = MAGIC + bytes([VERSION])
SYNC = MAGIC + b"\xf7"
TRAILER = MAGIC + b"\xf6"
FOOTER = MAGIC + b"\xf5"

INCOMPLETE = "the archive is incomplete: its end is missing"

NO_MODEL = bytes(32)  # stands for the SHA-256 of the model where there is none
ANY_MODEL = 255  # the number of all models that are not shipped
MODEL_ID_SIZE = 8

STORED, MODEL, BYTES = range(3)  # kinds of frames: the content itself; coded with a model; coded without one

MAX_SIZE = 1 << 26  # bytes of content in a frame
MAX_LANES_LOG2 = 6
VARINT_BYTES = 9  # 63 bits
CHECK_SIZE = 6  # checksum of the content, check of the header
MAX_HEAD = 13 + 4 + VARINT_BYTES + 1 + VARINT_BYTES * (2 + 63) + CHECK_SIZE


def pack_varint(value: int) -> bytes:
    """Return `value` in seven-bit groups, lowest first; all but the last have the top bit set."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Cursor:
    """A reader of fields from the front of `data`; raises TruncatedError at its end."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        if self.at + size > len(self.data):
            raise TruncatedError(INCOMPLETE)
        self.at += size
        return self.data[self.at - size : self.at]

    def integer(self, size: int) -> int:
        """Return the next `size` bytes as a little-endian integer."""
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        """Return the next varint; raises FormatError unless in the shortest form of its value."""
        value = 0
        for i in range(VARINT_BYTES):
            group = self.integer(1)
            value |= (group & 0x7F) << 7 * i
            if group < 0x80:
                if group == 0 and i > 0:
                    break
                return value
        raise FormatError("the archive is damaged: a number in a header is malformed")


@dataclass(frozen=True)
class ArchiveHeader:
    """The header of an archive, which names its model: by the `number` of a shipped one, by `model_id`, or by neither.

    Neither: all frames are stored. The model id is the first eight bytes of the SHA-256 of the
    model's file.
    """

    number: int | None = None
    model_id: bytes | None = None

    def pack(self) -> bytes:
        """Return the header's bytes."""
        if self.model_id is not None:
            return START + bytes([ANY_MODEL]) + self.model_id
        return START + bytes([self.number or 0])

    @classmethod
    def parse(cls, cursor: Cursor) -> ArchiveHeader:
        """Parse a header whose magic has been checked."""
        cursor.take(len(START))
        number = cursor.integer(1)
        if number == ANY_MODEL:
            return cls(model_id=cursor.take(MODEL_ID_SIZE))
        return cls(number=number or None)


@dataclass(frozen=True)
class FrameHeader:
    """The header of a frame: its number from 1, the sizes of its content and payload in bytes.

    `kind` is STORED, MODEL or BYTES. `lane_bytes` holds the bytes of content in each of the 1 to 64 lanes of a
    frame coded with a model. Raises FormatError for sizes that are out of bounds or do not go together.
    """

    number: int
    last: bool
    size: int
    payload_size: int
    kind: int = STORED
    lane_bytes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        lanes = len(self.lane_bytes)
        if self.size > MAX_SIZE:
            raise FormatError(f"frame {self.number} claims {self.size} bytes, the limit is {MAX_SIZE}")
        # An encoder stores what it cannot make smaller.
        sound = self.payload_size == self.size if self.kind == STORED else 0 < self.payload_size <= self.size
        if self.kind == MODEL:
            sound = sound and 0 < lanes <= 1 << MAX_LANES_LOG2 and lanes & (lanes - 1) == 0
            sound = sound and min(self.lane_bytes) >= 0 and sum(self.lane_bytes) == self.size
        else:
            sound = sound and lanes == 0
        # Only an empty file has an empty frame, so that a small archive cannot hold endless frames.
        if not sound or (self.size == 0 and not (self.last and self.number == 1)):
            raise FormatError(f"frame {self.number} has sizes that do not go together")

    def pack(self) -> bytes:
        """Return the header's bytes from its flags to its sizes."""
        lanes = max(1, len(self.lane_bytes))
        out = bytes([self.last | self.kind << 1 | (lanes.bit_length() - 1) << 3])
        out += pack_varint(self.size)
        if self.kind != STORED:
            out += b"".join(map(pack_varint, (self.payload_size, *self.lane_bytes[:-1])))
        return out

    @classmethod
    def parse(cls, cursor: Cursor, number: int) -> FrameHeader:
        """Parse the header of frame `number` from its flags to its sizes."""
        flags = cursor.integer(1)
        last, kind, lanes_log2 = bool(flags & 1), flags >> 1 & 3, flags >> 3 & 15
        if flags >> 7 or kind > BYTES or lanes_log2 > (MAX_LANES_LOG2 if kind == MODEL else 0):
            raise FormatError(f"frame {number} has reserved bits set: damaged, or made by a newer llmzip")
        size = cursor.varint()
        if kind == STORED:
            return cls(number, last, size, size)
        payload_size = cursor.varint()
        if kind == BYTES:
            return cls(number, last, size, payload_size, kind)
        lanes = [cursor.varint() for _ in range((1 << lanes_log2) - 1)]
        return cls(number, last, size, payload_size, kind, (*lanes, size - sum(lanes)))


@dataclass(frozen=True)
class Frame:
    """A frame as it was read.

    `archive` is the header of its archive, None if that is lost; `head` the header's bytes before
    the checksum of the content, with those of the archive header if it is the first frame.
    """

    archive: ArchiveHeader | None
    header: FrameHeader
    head: bytes
    checksum: int
    payload: bytes = b""

    @property
    def head_size(self) -> int:
        """Return the bytes before the payload."""
        return len(self.head) + CHECK_SIZE

    @property
    def stored_size(self) -> int:
        """Return the bytes of the whole frame in the archive."""
        return self.head_size + self.header.payload_size

    def pack_head(self) -> bytes:
        """Return the bytes before the payload."""
        out = self.head + self.checksum.to_bytes(4, "little")
        return out + (zlib.crc32(out) & 0xFFFF).to_bytes(2, "little")

    def verify(self, content: bytes, digest: bytes = NO_MODEL) -> None:
        """Raise ChecksumError unless `content` is what was compressed with the model of this `digest`."""
        if content_checksum(self.header, self.head, content, digest) != self.checksum:
            raise ChecksumError(f"frame {self.header.number} is damaged: its checksum does not match")


def content_checksum(header: FrameHeader, head: bytes, content: bytes, digest: bytes) -> int:
    """Return the CRC-32 that ties `content` to what coded it, its header and its place."""
    seed = zlib.crc32((NO_MODEL if header.kind == STORED else digest) + head + header.number.to_bytes(8, "little"))
    return zlib.crc32(content, seed)


def parse_frame(data: bytes, archive: ArchiveHeader | None) -> Frame:
    """Return the frame whose header starts `data`, without its payload.

    A first frame begins with the archive header, any other with the sync word; `archive` is the
    header of the archive that the latter belongs to. No more than MAX_HEAD bytes are needed.
    """
    cursor = Cursor(data)
    number = 1
    if data.startswith(START):
        archive = ArchiveHeader.parse(cursor)
    else:
        cursor.take(len(SYNC))
        number = cursor.varint()
    header = FrameHeader.parse(cursor, number)
    head = data[: cursor.at]
    checksum = cursor.integer(4)
    if zlib.crc32(data[: cursor.at]) & 0xFFFF != cursor.integer(2):
        raise ChecksumError(f"the header of frame {number} is damaged: its check does not match")
    if header.kind == MODEL and archive == ArchiveHeader():
        raise FormatError(f"frame {number} needs a model, and the archive names none")
    return Frame(archive, header, head, checksum)


class Trailer:
    """The trailer of an archive, built up frame by frame."""

    def __init__(self) -> None:
        self.count = 0
        self._sizes = bytearray()
        self._total = 0
        self._chain = 0

    def add(self, frame: Frame) -> None:
        """Append a frame."""
        self.count += 1
        self._sizes += pack_varint(frame.header.size) + pack_varint(frame.stored_size)
        self._total += frame.header.size
        self._chain = zlib.crc32(frame.checksum.to_bytes(4, "little"), self._chain)

    def pack(self) -> bytes:
        """Return the trailer's bytes, footer included."""
        out = TRAILER + pack_varint(self.count) + self._sizes + pack_varint(self._total)
        out += self._chain.to_bytes(4, "little")
        out += zlib.crc32(out).to_bytes(4, "little")
        return out + len(out).to_bytes(4, "little") + FOOTER


def parse_trailer(data: bytes) -> list[tuple[int, int]] | None:
    """Return each frame's bytes of content and in the archive, or None if `data` is no undamaged trailer."""
    end = len(data) - len(FOOTER) - 4
    if end < 8 or not data.startswith(TRAILER) or data[end:] != end.to_bytes(4, "little") + FOOTER:
        return None
    if zlib.crc32(data[: end - 4]) != int.from_bytes(data[end - 4 : end], "little"):
        return None
    cursor = Cursor(data)
    cursor.take(len(TRAILER))
    try:
        return [(cursor.varint(), cursor.varint()) for _ in range(cursor.varint())]
    except (FormatError, TruncatedError):
        return None


class Writer:
    """Write one archive, frame by frame.

    `digest` is the SHA-256 of the model's file; `number` its number if it is a shipped one. An archive of one frame
    that needs no model names none.
    """

    def __init__(self, stream: BinaryIO, digest: bytes = NO_MODEL, number: int | None = None):
        self._stream, self._digest = stream, digest
        model_id = None if number or digest == NO_MODEL else digest[:MODEL_ID_SIZE]
        self._archive = ArchiveHeader(number, model_id)
        self._trailer = Trailer()

    def write(
        self,
        content: bytes,
        *,
        last: bool,
        payload: bytes | None = None,
        lane_bytes: Sequence[int] = (),
        initial_state_digest: bytes | None = None,
    ) -> None:
        """Write a frame; it is stored unless its `payload` is given.

        With a payload, `lane_bytes` are the bytes of `content` in each lane if a model coded it, and
        `initial_state_digest` is that of the mixer's initial state if none did.
        """
        self.append(
            self.frame(
                content,
                number=self._trailer.count + 1,
                last=last,
                payload=payload,
                lane_bytes=lane_bytes,
                initial_state_digest=initial_state_digest,
            )
        )

    def frame(
        self,
        content: bytes,
        *,
        number: int,
        last: bool,
        payload: bytes | None,
        lane_bytes: Sequence[int],
        initial_state_digest: bytes | None,
    ) -> Frame:
        """Return frame `number`, from 1, without writing it; arguments are those of `write`."""
        kind = STORED if payload is None else BYTES if initial_state_digest is not None else MODEL
        data = content if payload is None else payload
        header = FrameHeader(number, last, len(content), len(data), kind, tuple(lane_bytes))
        archive = ArchiveHeader() if last and number == 1 and kind != MODEL else self._archive
        head = archive.pack() if number == 1 else SYNC + pack_varint(number)
        head += header.pack()
        digest = self._digest if initial_state_digest is None else initial_state_digest
        return Frame(archive, header, head, content_checksum(header, head, content, digest), data)

    def append(self, frame: Frame) -> None:
        """Write a frame that may have been made elsewhere; raises ValueError unless it is the next one."""
        if frame.header.number != self._trailer.count + 1:
            raise ValueError(f"frame {frame.header.number} comes after {self._trailer.count} frames")
        self._stream.write(frame.pack_head())
        self._stream.write(frame.payload)
        self._trailer.add(frame)
        if frame.header.last and frame.header.number > 1:
            self._stream.write(self._trailer.pack())
