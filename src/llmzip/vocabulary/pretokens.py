"""Cut bytes into *pre-tokens* of 1 to `LIMIT` bytes, inside which tokens are merged.

* letters (`A-Z a-z` and all bytes from 0x80 on, except the punctuation named below), or 1 to 3
  digits, or a run of punctuation (all other characters, and the three-byte characters
  U+2000-U+203F, U+3000-U+303F and fullwidth punctuation), each with at most one space in front;
* one of `' _ . - /` or U+2019 directly in front of letters goes with the letters ("don" + "'t",
  "os" + ".path");
* a run of spaces and tabs, or a run of newlines (CR, LF) with the spaces and tabs after it. The
  last space of either is left to what follows on the same line: newline, 4 spaces, "if" is
  newline + 3 spaces, then " if".

A run longer than `LIMIT` is cut there, or up to 3 bytes earlier so as not to cut a UTF-8 character.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from llmzip.jit import jit

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Int: TypeAlias = Any  # in kernels: an int for Python, an int64 once compiled

LIMIT = 32  # the longest pre-token in bytes

LETTER, DIGIT, PUNCTUATION, BLANK, NEWLINE = range(5)


def as_bytes(data: bytes | bytearray | memoryview) -> Bytes:
    """Return *data* as a read-only uint8 array without copying it."""
    array = np.frombuffer(data, np.uint8)
    array.flags.writeable = False  # one type for all inputs, so that the kernels are compiled once
    return array


def split_pretokens(data: bytes | bytearray | memoryview) -> Ints:
    """Return the int64 ends of the pre-tokens of *data*, in order; the last one is len(data)."""
    ends: Ints = _split(as_bytes(data))
    return ends


@jit
def _class_of(data: Bytes, i: Int) -> tuple[Int, Int]:
    """Return the class of the character that starts at *i* and the number of bytes it has here."""
    c = data[i]
    if c >= 0x80:
        if i + 2 < data.size and data[i + 2] & 0xC0 == 0x80:
            d, e = data[i + 1], data[i + 2]
            if (c == 0xE2 or c == 0xE3) and d == 0x80:
                return PUNCTUATION, 3
            if c == 0xEF and d == 0xBC and (e < 0x90 or 0x9A <= e <= 0xA0):
                return PUNCTUATION, 3
        return LETTER, 1
    if 0x61 <= c | 0x20 <= 0x7A:
        return LETTER, 1
    if 0x30 <= c <= 0x39:
        return DIGIT, 1
    if c == 0x20 or c == 0x09:
        return BLANK, 1
    if c == 0x0A or c == 0x0D:
        return NEWLINE, 1
    return PUNCTUATION, 1


@jit
def _joins_letters(data: Bytes, i: Int, width: Int) -> bool:
    """Return whether the punctuation at *i* goes with letters that follow it directly."""
    if i + width >= data.size or _class_of(data, i + width)[0] != LETTER:
        return False
    if width == 3:
        return bool(data[i] == 0xE2 and data[i + 2] == 0x99)
    return data[i] in (0x27, 0x2D, 0x2E, 0x2F, 0x5F)


@jit
def pretoken_end(data: Bytes, start: Int) -> Int:
    """Return the end of the pre-token that begins at *start*, which is below data.size."""
    size = data.size
    cap = min(size, start + LIMIT)
    i = start
    kind, width = _class_of(data, i)
    if kind in (BLANK, NEWLINE):
        while i < cap and (data[i] == 0x0A or data[i] == 0x0D):
            i += 1
        while i < cap and (data[i] == 0x20 or data[i] == 0x09):
            i += 1
        if i == size or data[i - 1] != 0x20:
            return i
        kind, width = _class_of(data, i)
        if kind in (BLANK, NEWLINE):
            return i
        if i - 1 > start:
            return i - 1
    if kind == PUNCTUATION and _joins_letters(data, i, width):
        i += width
        kind = LETTER
    longest = min(cap, i + 3) if kind == DIGIT else cap
    while i < longest:
        other, width = _class_of(data, i)
        if other != kind or i + width > cap:
            break
        i += width
    if kind == LETTER and i == cap and i < size:
        for back in range(4):
            if data[i - back] & 0xC0 != 0x80:
                return i - back
    return i


@jit
def _split(data: Bytes) -> Ints:
    ends = np.empty(data.size, np.int64)
    count = 0
    i = 0
    while i < data.size:
        i = pretoken_end(data, i)
        ends[count] = i
        count += 1
    return ends[:count].copy()
