"""The small form: a short text as an archive of its own, with one to five bytes over its payload.

::

    lead        1    bits 7-6: 10; bits 5-4: size of the check (0, 1, 2, 4 bytes); bits 3-0: the model
    model       0-2  model 14: the number of a numbered model; 15: the first two bytes of the SHA-256 of another
    size        1-2  varint: bytes of content
    check       0-4  the lowest bytes of a crc32
    payload          to the end; the content itself if it is as long

No UTF-8 text begins with the bytes 80 to BF. A caller who knows the model and the size of the check may leave out lead
and model (`bare`): what is left is told from an archive, as no short text is of the size that `F8 4C` would say.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from llmzip.container.format import Cursor, pack_varint
from llmzip.errors import ChecksumError, FormatError

MOST_BYTES = 4096  # of content: what is longer gains more from an archive, whose mixer learns
CHECK_SIZES = (0, 1, 2, 4)
NUMBERED, OTHER = 14, 15
OTHER_SIZE = 2
MOST_SMALL = MOST_BYTES + 1 + OTHER_SIZE + 2 + CHECK_SIZES[-1]  # bytes of such an archive


@dataclass(frozen=True)
class SmallHeader:
    """What a short text's archive says before its check.

    Attributes:
        size: bytes of content.
        check_size: bytes of the check: 0, 1, 2 or 4.
        number: of a numbered model; None for another model or none at all.
        model_id: the first bytes of the SHA-256 of another model.
    """

    size: int
    check_size: int
    number: int | None = None
    model_id: bytes | None = None

    def pack(self, *, bare: bool = False) -> bytes:
        """Return the bytes before the check."""
        if bare:
            return pack_varint(self.size)
        if self.model_id is not None:
            model, more = OTHER, self.model_id
        elif self.number is not None and self.number >= NUMBERED:
            model, more = NUMBERED, bytes([self.number])
        else:
            model, more = self.number or 0, b""
        return bytes([0x80 | CHECK_SIZES.index(self.check_size) << 4 | model]) + more + pack_varint(self.size)


def begins_small(window: bytes) -> bool:
    """Return whether `window` may begin a short text's archive."""
    return bool(window) and window[0] & 0xC0 == 0x80


def parse(data: bytes) -> tuple[SmallHeader, bytes, bytes]:
    """Return the header, the check and the payload of a short text's archive; raises FormatError."""
    cursor = Cursor(data)
    lead = cursor.integer(1)
    check_size, model = CHECK_SIZES[lead >> 4 & 3], lead & 15
    number, model_id = model or None, None
    if model == NUMBERED:
        number = cursor.integer(1)
        if number < NUMBERED:
            raise FormatError("not an llmzip archive")
    elif model == OTHER:
        number, model_id = None, cursor.take(OTHER_SIZE)
    size = _size(cursor)
    return SmallHeader(size, check_size, number, model_id), cursor.take(check_size), _payload(cursor, size)


def parse_bare(data: bytes, check_size: int) -> tuple[int, bytes, bytes]:
    """Return the size of the content, the check and the payload of a bare short text; raises FormatError."""
    cursor = Cursor(data)
    size = _size(cursor)
    return size, cursor.take(check_size), _payload(cursor, size)


def _size(cursor: Cursor) -> int:
    size = cursor.varint()
    if size > MOST_BYTES:
        raise FormatError("not an llmzip archive")
    return size


def _payload(cursor: Cursor, size: int) -> bytes:
    payload = cursor.take(len(cursor.data) - cursor.at)
    if len(payload) > size or (size > 0 and not payload):
        raise FormatError("not an llmzip archive")
    return payload


def check_of(content: bytes, digest: bytes, size: int) -> bytes:
    """Return the check, `size` bytes, that ties `content` to what coded it."""
    return zlib.crc32(content, zlib.crc32(digest)).to_bytes(4, "little")[:size]


def verify(content: bytes, digest: bytes, check: bytes) -> None:
    """Raise ChecksumError unless `check` is that of `content`."""
    if check_of(content, digest, len(check)) != check:
        raise ChecksumError("the short text is damaged: its check does not match")
