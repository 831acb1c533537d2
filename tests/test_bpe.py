"""The vocabulary trainer against a naive one that counts everything afresh before each merge."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmzip.training.bpe import train_bpe
from llmzip.vocabulary.pretokens import split_pretokens
from llmzip.vocabulary.tokenizer import Tokenizer


def reference(chunks: list[bytes], vocab_size: int, max_length: int, min_count: int) -> dict[bytes, int]:
    """Return the tokens with their ranks, by the rule of the module's docstring."""
    words: list[list[bytes]] = []
    for chunk in chunks:
        at = 0
        for end in split_pretokens(chunk).tolist():
            words.append([bytes([byte]) for byte in chunk[at:end]])
            at = end
    ranks = {bytes([i]): -1 for i in range(256)}
    while len(ranks) < vocab_size:
        pairs = Counter(pair for word in words for pair in pairwise(word))
        usable = {
            (-count, a + b, len(a))
            for (a, b), count in pairs.items()
            if count >= min_count and len(a + b) <= max_length
        }
        if not usable:
            break
        _, joined, middle = min(usable)
        pair = [joined[:middle], joined[middle:]]
        ranks.setdefault(joined, len(ranks) - 256)
        for word in words:
            i = 0
            while i < len(word) - 1:
                if word[i : i + 2] == pair:
                    word[i : i + 2] = [joined]
                i += 1
    return ranks


pieces = st.sampled_from([b"a", b"b", b"ab", b"aab", b"bab", b" ", b"\n", "é".encode(), "中文".encode(), b"1"])
corpora = st.lists(st.lists(pieces, max_size=60).map(b"".join), max_size=4)


@settings(deadline=None)  # the first example waits for the compiler
@given(corpora, st.integers(256, 290), st.integers(2, 32), st.integers(1, 3))
def test_equals_the_reference(chunks: list[bytes], vocab_size: int, max_length: int, min_count: int) -> None:
    tokens, ranks = train_bpe(chunks, vocab_size, max_length=max_length, min_count=min_count)
    expected = reference(chunks, vocab_size, max_length, min_count)
    assert tokens == sorted(expected)
    assert ranks.dtype == np.int32
    assert dict(zip(tokens, ranks.tolist(), strict=True)) == expected


def test_many_merges_equal_the_reference() -> None:
    # Unlike the small corpora above, this one makes the tables grow more than once.
    chunk = np.random.default_rng(1).integers(97, 123, 4000).astype(np.uint8).tobytes()
    tokens, ranks = train_bpe([chunk], 800)
    assert dict(zip(tokens, ranks.tolist(), strict=True)) == reference([chunk], 800, 32, 2)


def test_every_pair_of_high_bytes() -> None:
    high = range(0x80, 0x100)
    chunk = b"".join(bytes([a, b]) for a in high for b in high)
    tokens, _ = train_bpe([chunk, chunk[1:]], 300)
    assert len(tokens) == 300


def test_learnt_words_are_single_tokens() -> None:
    tokens, ranks = train_bpe([b"the cat saw the other cat. " * 20], 300)
    tokenizer = Tokenizer(tokens, ranks)
    assert [tokenizer.tokens[i] for i in tokenizer.encode(b" cat saw the")] == [
        b" cat",
        b" saw",
        b" the",
    ]


def test_no_token_is_learnt_across_chunks() -> None:
    tokens, _ = train_bpe([b"q", b"z"] * 50, 300)
    assert b"qz" not in tokens
    assert b"zq" not in tokens


def test_stops_when_the_text_yields_no_more() -> None:
    tokens, ranks = train_bpe([], 1000)
    assert tokens == [bytes([i]) for i in range(256)]
    assert ranks.tolist() == [-1] * 256


@pytest.mark.parametrize("vocab_size", [255, 1 << 21])
def test_bad_sizes_are_refused(vocab_size: int) -> None:
    with pytest.raises(ValueError, match="vocab_size"):
        train_bpe([b"text"], vocab_size)
