"""The tokenizer: round trips of any bytes, the pre-token rules, and the kernels against plain Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmzip
from llmzip.vocabulary.pretokens import LIMIT, split_pretokens
from llmzip.vocabulary.tokenizer import Tokenizer

# The first example waits for the compiler.
unhurried = settings(deadline=None)

SINGLES = [bytes([i]) for i in range(256)]

# The rules of the module's docstring once more, as an expression without the limit on the length.
WIDE = rb"(?:\xe2\x80[\x80-\xbf]|\xe3\x80[\x80-\xbf]|\xef\xbc[\x80-\x8f\x9a-\xa0])"
LETTERS = rb"(?:(?!" + WIDE + rb")[A-Za-z\x80-\xff])+"
PUNCTUATION = rb"(?:" + WIDE + rb"|[^A-Za-z\x80-\xff0-9 \t\r\n])+"
VISIBLE = re.compile(rb" ?(?:(?:['_./-]|\xe2\x80\x99)?" + LETTERS + rb"|[0-9]{1,3}|" + PUNCTUATION + rb")")
SPACE = re.compile(rb"[\r\n]*[ \t]*")


def reference_split(data: bytes) -> list[bytes]:
    """Cut *data* into pre-tokens by regular expressions."""
    pieces = []
    at = 0
    while at < len(data):
        if match := VISIBLE.match(data, at):
            end = match.end()
            if end > at + LIMIT:
                end = at + LIMIT
                end -= next((k for k in range(4) if data[end - k] & 0xC0 != 0x80), 0)
        else:
            end = SPACE.match(data, at).end()
            if end > at + LIMIT:
                end = at + LIMIT
            elif end < len(data) and end > at + 1 and data[end - 1] == 0x20 and data[end] not in b"\r\n":
                end -= 1
        pieces.append(data[at:end])
        at = end
    return pieces


def reference_encode(data: bytes, tokens: list[bytes], ranks: list[int]) -> list[int]:
    """Encode *data* by the rule: merge the leftmost of the pairs whose token has the lowest rank."""
    ids = {token: i for i, token in enumerate(tokens)}
    out = []
    for piece in reference_split(data):
        parts = [bytes([byte]) for byte in piece]
        while True:
            joined = [a + b for a, b in pairwise(parts)]
            choices = [(ranks[ids[j]], i) for i, j in enumerate(joined) if j in ids]
            if not choices:
                break
            _, i = min(choices)
            parts[i : i + 2] = [joined[i]]
        out += [ids[part] for part in parts]
    return out


def split(data: bytes) -> list[bytes]:
    ends = [0, *split_pretokens(data).tolist()]
    return [data[a:b] for a, b in pairwise(ends)]


def vocabulary(words: set[bytes], order: int = 0) -> Tokenizer:
    """Return a tokenizer with *words* beside the single bytes and ranks, some of them equal, by *order*."""
    tokens = sorted({*SINGLES, *words})
    return Tokenizer(tokens, [(i * 7919 + order) % 11 for i in range(len(tokens))])


# Texts of few symbols, so that the words of a small vocabulary occur in them.
SYMBOLS = [
    "a",
    "b",
    "B",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "1",
    "'",
    "_",
    "-",
    "(",
    "é",
    "\u2019",
    "“",
    "中",
    "\uff0c",
    "😀",
]
texts = st.lists(st.one_of(st.sampled_from(SYMBOLS).map(str.encode), st.binary(max_size=3)), max_size=80).map(b"".join)
words = st.lists(st.sampled_from(SYMBOLS), min_size=2, max_size=4).map(lambda s: "".join(s).encode())
vocabularies = st.builds(vocabulary, st.sets(words, max_size=40), st.integers(0, 10))


@unhurried
@given(vocabularies, st.one_of(texts, st.binary(max_size=300)))
def test_any_bytes_round_trip(tokenizer: Tokenizer, data: bytes) -> None:
    ids = tokenizer.encode(data)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == data
    assert tokenizer.byte_lengths(ids).sum() == len(data)


@unhurried
@given(vocabularies, texts)
def test_encoder_equals_the_reference(tokenizer: Tokenizer, data: bytes) -> None:
    expected = reference_encode(data, tokenizer.tokens, tokenizer.ranks.tolist())
    assert tokenizer.encode(data).tolist() == expected


@unhurried
@given(st.one_of(texts, st.binary(max_size=300), st.binary(min_size=1, max_size=3).map(lambda b: b * 60)))
def test_pretokens_equal_the_reference(data: bytes) -> None:
    pieces = split(data)
    assert pieces == reference_split(data)
    assert b"".join(pieces) == data
    assert all(1 <= len(piece) <= LIMIT for piece in pieces)


@unhurried
@given(st.text(max_size=200))
def test_pretokens_of_valid_utf8_are_valid_utf8(text: str) -> None:
    for piece in split(text.encode()):
        piece.decode()


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("The  cat isn't  here.", ["The", " ", " cat", " isn", "'t", " ", " here", "."]),
        ("\n    if x:\n\treturn\n", ["\n   ", " if", " x", ":", "\n\t", "return", "\n"]),
        ("a \n  \r\n\r\n b", ["a", " ", "\n  ", "\r\n\r\n", " b"]),
        ("self.max_length != 12345", ["self", ".max", "_length", " !=", " 123", "45"]),
        ("“It\u2019s,” 中文\uff0c好。", ["“", "It", "\u2019s", ",”", " 中文", "\uff0c", "好", "。"]),
        ("trailing   ", ["trailing", "   "]),
        ("x" * 40, ["x" * 32, "x" * 8]),
        ("=" * 40 + "x", ["=" * 32, "=" * 8, "x"]),
        ("é" * 20 + "中" * 20, ["é" * 16, "é" * 4 + "中" * 8, "中" * 10, "中" * 2]),
        ("\0\x7f", ["\0\x7f"]),
    ],
)
def test_pretokens_are_as_documented(text: str, pieces: list[str]) -> None:
    assert split(text.encode()) == [piece.encode() for piece in pieces]


@pytest.mark.parametrize(
    "data",
    [
        b"a" * 10_000_000,
        b" " * 1_000_000,
        b"\r\n" * 500_000,
        "中".encode() * 300_000,
        b"\x80" * 1_000_000,
    ],
    ids=["letters", "spaces", "newlines", "chinese", "stray"],
)
def test_long_runs_are_cut(data: bytes) -> None:
    lengths = np.diff(split_pretokens(data), prepend=0)
    assert lengths.max() <= LIMIT
    assert lengths[:-1].min() > LIMIT - 4
    tokenizer = vocabulary({b"aa", b"aaaa", b"  ", "中".encode()})
    assert tokenizer.decode(tokenizer.encode(data)) == data


def test_empty_input_has_no_tokens() -> None:
    tokenizer = vocabulary(set())
    assert tokenizer.encode(b"").tolist() == []
    assert tokenizer.decode([]) == b""
    assert tokenizer.byte_lengths([]).tolist() == []


def test_all_buffer_types_are_accepted() -> None:
    tokenizer = vocabulary({b"ab"})
    expected = tokenizer.encode(b"abc").tolist()
    assert tokenizer.encode(bytearray(b"abc")).tolist() == expected
    assert tokenizer.encode(memoryview(b"xabc")[1:]).tolist() == expected


def test_attributes_describe_the_vocabulary() -> None:
    tokenizer = vocabulary({b"ab", b"abc"})
    assert (tokenizer.size, tokenizer.max_length) == (258, 3)
    spelt = [tokenizer.blob[a:b].tobytes() for a, b in pairwise(tokenizer.offsets)]
    assert spelt == tokenizer.tokens == sorted(tokenizer.tokens)
    again = Tokenizer.from_arrays(tokenizer.blob, tokenizer.offsets, tokenizer.ranks)
    assert again.tokens == tokenizer.tokens
    assert again.encode(b"abcab").tolist() == tokenizer.encode(b"abcab").tolist()


@pytest.mark.parametrize(
    ("tokens", "ranks", "message"),
    [
        (SINGLES[1:], range(255), "256 single bytes"),
        ([b"", *SINGLES], range(257), "no empty"),
        ([*SINGLES, b"ab"], range(257), "ascending"),
        (sorted([*SINGLES, b"ab", b"ab"]), range(258), "ascending"),
        (SINGLES, range(255), "shape"),
    ],
)
def test_bad_vocabularies_are_refused(tokens: list[bytes], ranks: range, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokenizer(tokens, list(ranks))


@pytest.mark.parametrize("offsets", [[], [1, 256], [0, 255]])
def test_offsets_that_do_not_fit_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="span"):
        Tokenizer.from_arrays(np.arange(256, dtype=np.uint8), np.array(offsets, np.int64), [])


@pytest.mark.parametrize("ids", [[-1], [0, 256], [2**40]])
def test_ids_out_of_range_are_refused(ids: list[int]) -> None:
    tokenizer = vocabulary(set())
    with pytest.raises(ValueError, match="between 0 and 255"):
        tokenizer.decode(ids)
    with pytest.raises(ValueError, match="between 0 and 255"):
        tokenizer.byte_lengths(ids)


def test_same_ids_without_the_compiler() -> None:
    data = "The théory of “it”, the cat's 12345\r\n\t\0\xff中文中文".encode("utf-16") + "the théory".encode() * 3
    text = sorted({*SINGLES, b"th", b"the", b" the", "é".encode(), b"e\0", b"00"})
    program = (
        "from llmzip.vocabulary.tokenizer import Tokenizer\n"
        f"tokenizer = Tokenizer({text!r}, list(range({len(text)})))\n"
        f"ids = tokenizer.encode({data!r})\n"
        f"assert tokenizer.decode(ids) == {data!r}\n"
        "print(ids.tolist())\n"
    )
    environment = {
        **os.environ,
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONPATH": str(Path(llmzip.__file__).parents[1]),
        "PYTHONWARNINGS": "error",  # an overflow of a numpy scalar would be a warning
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.strip() == str(Tokenizer(text, list(range(len(text)))).encode(data).tolist())
