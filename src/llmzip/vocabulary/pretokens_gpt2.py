r"""Cut bytes into pre-tokens as the vocabularies of published models expect it.

``gpt2`` is the rule of GPT-2 (Radford et al. 2019), the regular expression

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

with Unicode's letters, numbers and blanks. ``gpt2-digits`` cuts every number character off first (SmolLM2).

The categories are those of Unicode 3.2, which Python keeps unchanged: characters that came later are no letters here,
on every machine. Bytes that are no UTF-8 are neither letters, numbers nor blanks. A run longer than `LIMIT` is cut. All
this only decides which tokens an encoder chooses: a decoder needs none of it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple
from unicodedata import ucd_3_2_0

import numpy as np

from llmzip.jit import jit
from llmzip.vocabulary.pretokens import Bytes, Int

LIMIT = 96  # the longest pre-token in bytes
SPLITTINGS = ("gpt2", "gpt2-digits")
TABLE = 0x30000  # code points beyond it are of no class but OTHER
OTHER, LETTER, NUMBER, BLANK = range(4)


class Rules(NamedTuple):
    """The rules of a splitting.

    Attributes:
        classes: uint8[TABLE], the class of each code point; empty for the rules of llmzip.vocabulary.pretokens.
        single_digits: whether every number character is a pre-token of its own.
    """

    classes: Bytes
    single_digits: bool


@functools.cache
def rules(splitting: str) -> Rules:
    """Return the rules of a splitting."""
    if splitting not in SPLITTINGS:
        return Rules(np.zeros(0, np.uint8), False)
    classes = np.zeros(TABLE, np.uint8)
    for code in range(TABLE):
        kind = ucd_3_2_0.category(chr(code))[0]
        if kind in "LN":
            classes[code] = LETTER if kind == "L" else NUMBER
        elif chr(code).isspace() and not 0x1C <= code <= 0x1F:
            classes[code] = BLANK
    return Rules(classes, splitting == "gpt2-digits")


@jit
def _character(data: Bytes, i: Int, classes: Bytes) -> tuple[Int, Int]:
    """Return the class of the character that starts at *i* and the number of its bytes."""
    c = np.int64(data[i])
    if c < 0x80:
        return np.int64(classes[c]), 1
    width = 2 if 0xC2 <= c <= 0xDF else 3 if 0xE0 <= c <= 0xEF else 4 if 0xF0 <= c <= 0xF4 else 0
    if width == 0 or i + width > data.size:
        return OTHER, 1
    code = c & (0x7F >> width)
    for k in range(1, width):
        d = np.int64(data[i + k])
        if d & 0xC0 != 0x80:
            return OTHER, 1
        code = (code << 6) | (d & 0x3F)
    return np.int64(classes[code]) if code < TABLE else OTHER, width


@jit
def _contraction(data: Bytes, i: Int) -> Int:
    """Return the number of bytes of the contraction that starts at *i*, 0 for none."""
    if data[i] != 0x27 or i + 1 >= data.size:
        return 0
    a = data[i + 1]
    if a == 0x73 or a == 0x74 or a == 0x6D or a == 0x64:  # s t m d
        return 2
    if i + 2 < data.size:
        b = data[i + 2]
        if (a == 0x72 and b == 0x65) or (a == 0x76 and b == 0x65) or (a == 0x6C and b == 0x6C):  # re ve ll
            return 3
    return 0


@jit
def pretoken_end(data: Bytes, start: Int, rules: Rules) -> Int:
    """Return the end of the pre-token that begins at *start*, which is below data.size."""
    classes, single = rules.classes, rules.single_digits
    size = data.size
    cap = min(size, start + LIMIT)
    short = _contraction(data, start)
    if short:
        return start + short
    kind, width = _character(data, start, classes)
    if single and kind == NUMBER:
        return start + width
    if kind == BLANK:
        # A run of blanks leaves its last one to what follows, which takes it in if it is a space.
        i, last = start, start
        while i < cap:
            other, width = _character(data, i, classes)
            if other != BLANK:
                break
            last = i
            i += width
        if i >= cap:
            return min(i, size)
        if single and other == NUMBER:
            return i
        if last > start:
            return last
        if data[start] != 0x20:
            return i
        kind = other
        i = start + 1
    else:
        i = start
    while i < cap:
        other, width = _character(data, i, classes)
        if other != kind or i + width > cap:
            break
        i += width
    return i
