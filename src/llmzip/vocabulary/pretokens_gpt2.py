r"""Cut bytes into pre-tokens as the vocabularies of published models expect it.

``gpt2`` is the rule of GPT-2 (Radford et al. 2019), the regular expression

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

with Unicode's letters, numbers and blanks. ``gpt2-digits`` cuts every number character off first (SmolLM2). ``llama3``
(Llama 3, Grattafiori et al. 2024) and ``qwen2``, with single digits (Yang et al. 2024), are

    (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+

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
SPLITTINGS = ("gpt2", "gpt2-digits", "llama3", "qwen2")
TABLE = 0x30000  # code points beyond it are of no class but OTHER
OTHER, LETTER, NUMBER, BLANK = range(4)


class Rules(NamedTuple):
    """The rules of a splitting.

    Attributes:
        classes: uint8[TABLE], the class of each code point.
        digits: the most number characters in a pre-token.
        newer: whether the rules are those of Llama 3, not GPT-2's.
    """

    classes: Bytes
    digits: int
    newer: bool


@functools.cache
def rules(splitting: str) -> Rules:
    """Return the rules of one of the SPLITTINGS."""
    classes = np.zeros(TABLE, np.uint8)
    for code in range(TABLE):
        kind = ucd_3_2_0.category(chr(code))[0]
        if kind in "LN":
            classes[code] = LETTER if kind == "L" else NUMBER
        elif chr(code).isspace() and not 0x1C <= code <= 0x1F:
            classes[code] = BLANK
    digits = {"gpt2-digits": 1, "qwen2": 1, "llama3": 3}.get(splitting, LIMIT)
    return Rules(classes, digits, splitting in ("llama3", "qwen2"))


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
def _contraction(data: Bytes, i: Int, either_case: bool) -> Int:
    """Return the number of bytes of the contraction that starts at *i*, 0 for none."""
    if data[i] != 0x27 or i + 1 >= data.size:
        return 0
    case = 0x20 if either_case else 0
    a = data[i + 1] | case
    if a == 0x73 or a == 0x74 or a == 0x6D or a == 0x64:  # s t m d
        return 2
    if i + 2 < data.size:
        b = data[i + 2] | case
        if (a == 0x72 and b == 0x65) or (a == 0x76 and b == 0x65) or (a == 0x6C and b == 0x6C):  # re ve ll
            return 3
    return 0


@jit
def _run_end(data: Bytes, i: Int, cap: Int, kind: Int, classes: Bytes, most: Int) -> Int:
    """Return the end of the characters of a class from *i* on, *most* at most."""
    count = 0
    while i < cap and count < most:
        other, width = _character(data, i, classes)
        if other != kind or i + width > cap:
            break
        i += width
        count += 1
    return i


@jit
def _newer_end(data: Bytes, start: Int, rules: Rules) -> Int:
    """Return the end of the pre-token that begins at *start*, by the rules of Llama 3."""
    classes = rules.classes
    cap = min(data.size, start + LIMIT)
    short = _contraction(data, start, True)
    if short:
        return start + short
    kind, first = _character(data, start, classes)
    if kind == LETTER:
        return _run_end(data, start, cap, LETTER, classes, LIMIT)
    if kind == NUMBER:
        return _run_end(data, start, cap, NUMBER, classes, rules.digits)
    following, second = np.int64(-1), start + first
    if second < cap:
        following, _ = _character(data, second, classes)
    line_end = data[start] == 0x0A or data[start] == 0x0D
    if following == LETTER and not line_end:
        end = _run_end(data, second, cap, LETTER, classes, LIMIT)
        return end if end > second else second
    if kind == OTHER or (data[start] == 0x20 and following == OTHER):
        end = _run_end(data, start if kind == OTHER else second, cap, OTHER, classes, LIMIT)
        while end > start and end < cap and (data[end] == 0x0A or data[end] == 0x0D):
            end += 1
        return max(end, start + first)
    # Blanks: up to the last line end among them; else all but the last, which goes with what follows.
    end, last, after_line = start, start, start
    while end < cap:
        other, width = _character(data, end, classes)
        if other != BLANK or end + width > cap:
            break
        last = end
        end += width
        if data[last] == 0x0A or data[last] == 0x0D:
            after_line = end
    if after_line > start:
        return after_line
    return last if end < data.size and last > start and end < cap else max(end, start + first)


@jit
def pretoken_end(data: Bytes, start: Int, rules: Rules) -> Int:
    """Return the end of the pre-token that begins at *start*, which is below data.size."""
    if rules.newer:
        return _newer_end(data, start, rules)
    classes, single = rules.classes, rules.digits == 1
    size = data.size
    cap = min(size, start + LIMIT)
    short = _contraction(data, start, False)
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
