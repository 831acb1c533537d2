"""Cut bytes into tokens: byte-level byte-pair encoding, for any bytes at all.

The vocabulary is a list of byte strings in byte order; the id of a token is its place in that list,
so that every byte prefix is a contiguous range of ids. All 256 single bytes are tokens, hence every
input can be encoded.

Encoding has two steps. First the bytes are cut into *pre-tokens*, by the rules of
:mod:`llmzip.vocabulary.pretokens` or, for the vocabularies of published models, of
:mod:`llmzip.vocabulary.pretokens_gpt2`. Then, inside each pre-token, the neighbours whose concatenation
is the token with the lowest rank are merged (the leftmost at equal rank) until no two neighbours make a
token. As a pre-token is short, the cost is linear in the input.

The decoder needs only the list of tokens, so the rules of encoding may change without changing the
format.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from llmzip.jit import jit
from llmzip.vocabulary import pretokens, pretokens_gpt2
from llmzip.vocabulary.pretokens import Bytes, Int, Ints, as_bytes
from llmzip.vocabulary.pretokens_gpt2 import LIMIT, Rules

Ids = npt.NDArray[np.int32]

MAX_TOKENS = 1 << 20  # three ids share one int64 of the pair table
NO_RANK = 2**31 - 1
MEMO = 1 << 14  # pre-tokens remembered while encoding
OWN = "llmzip"  # the rules of llmzip.vocabulary.pretokens


class Tokenizer:
    """A vocabulary with its merge order.

    Attributes:
        tokens: the byte strings in byte order.
        ranks: int32[size], the merge priority of each token, lowest first; ignored for single bytes.
        size: the number of tokens.
        blob: uint8, all tokens joined.
        offsets: int64[size + 1], token i is blob[offsets[i]:offsets[i + 1]].
        max_length: the length of the longest token in bytes.
        splitting: the rules for pre-tokens: OWN or one of pretokens_gpt2.SPLITTINGS.
    """

    def __init__(self, tokens: Sequence[bytes], ranks: npt.ArrayLike, splitting: str = OWN) -> None:
        """Check and index the vocabulary.

        Raises ValueError if *tokens* is not strictly ascending, lacks one of the 256 single bytes,
        holds an empty token or is too large, or if *ranks* does not hold one int32 for each token.
        """
        self.tokens = list(tokens)
        self.size = len(self.tokens)
        self.ranks = np.array(ranks, dtype=np.int32)
        if self.ranks.shape != (self.size,):
            raise ValueError(f"{self.size} tokens but ranks of shape {self.ranks.shape}")
        if self.size > MAX_TOKENS:
            raise ValueError(f"{self.size} tokens, the limit is {MAX_TOKENS}")
        if any(a >= b for a, b in pairwise(self.tokens)):
            raise ValueError("tokens are not in strictly ascending byte order")
        lengths = np.fromiter(map(len, self.tokens), np.int64, self.size)
        if np.count_nonzero(lengths == 1) != 256 or lengths.min() == 0:
            raise ValueError("tokens must hold all 256 single bytes and no empty string")
        self.offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
        self.blob = np.frombuffer(b"".join(self.tokens), np.uint8)
        self.max_length = int(lengths.max())
        if splitting != OWN and splitting not in pretokens_gpt2.SPLITTINGS:
            raise ValueError(f"no rules for pre-tokens are called {splitting}")
        self.splitting = splitting
        self._singles = np.flatnonzero(lengths == 1)  # the id of each byte value
        self._pairs: Ints | None = None  # built by the first `encode`: decoding does without

    @classmethod
    def from_arrays(cls, blob: Bytes, offsets: Ints, ranks: npt.ArrayLike, splitting: str = OWN) -> Tokenizer:
        """Build a tokenizer from the arrays that are its attributes of the same names.

        Raises ValueError as the constructor does, or if *offsets* does not fit *blob*.
        """
        raw, ends = blob.tobytes(), offsets.tolist()
        if not ends or ends[0] != 0 or ends[-1] != len(raw):
            raise ValueError("offsets do not span the blob")
        return cls([raw[a:b] for a, b in pairwise(ends)], ranks, splitting)

    def encode(self, data: bytes | bytearray | memoryview) -> Ids:
        """Return the int32 ids of the tokens that spell *data*."""
        if self._pairs is None:
            self._pairs = _build_pairs(self.blob, self.offsets)
        rules = None if self.splitting == OWN else pretokens_gpt2.rules(self.splitting)
        ids: Ids = _encode(as_bytes(data), rules, self._singles, self._pairs, self.ranks)
        return ids

    def decode(self, ids: npt.ArrayLike) -> bytes:
        """Return the bytes that the tokens *ids* spell.

        Raises ValueError if an id is out of range.
        """
        decoded: Bytes = _decode(self._check(ids).ravel(), self.blob, self.offsets)
        return decoded.tobytes()

    def byte_lengths(self, ids: npt.ArrayLike) -> Ints:
        """Return the int64 lengths in bytes of the tokens *ids*.

        Raises ValueError if an id is out of range.
        """
        checked = self._check(ids)
        return self.offsets[checked + 1] - self.offsets[checked]

    def _check(self, ids: npt.ArrayLike) -> Ints:
        wide = np.ascontiguousarray(ids, dtype=np.int64)
        if wide.size and (wide.min() < 0 or wide.max() >= self.size):
            raise ValueError(f"token ids must be between 0 and {self.size - 1}")
        return wide


# Kernels. Hashes are int64 kept below 2**37 before each product, so nothing overflows and the results
# with and without the compiler are the same.


@jit
def _hash_step(state: Int, value: Int) -> Int:
    """Mix *value* into the hash *state*; both and the result are below 2**37."""
    state = ((state ^ value) * 0x9E3779) & 0x1FFFFFFFFF
    return state ^ (state >> 17)


@jit
def hash_bytes(data: Bytes, start: Int, end: Int) -> Int:
    """Return the hash of data[start:end], below 2**37."""
    state = np.int64(end - start)
    for i in range(start, end):
        state = _hash_step(state, np.int64(data[i]))
    return state


@jit
def same_bytes(data: Bytes, a: Int, b: Int, length: Int) -> bool:
    """Return whether the *length* bytes at *a* and at *b* are the same."""
    for i in range(length):  # noqa: SIM110 (numba compiles no generator)
        if data[a + i] != data[b + i]:
            return False
    return True


@jit
def _find_token(blob: Bytes, offsets: Ints, index: Ints, start: Int, end: Int) -> Int:
    """Return the slot of *index* that holds the token blob[start:end], or else the free slot for it."""
    mask = index.size - 1
    slot = hash_bytes(blob, start, end) & mask
    while index[slot] >= 0:
        token = index[slot]
        a = offsets[token]
        if offsets[token + 1] - a == end - start and same_bytes(blob, a, start, end - start):
            break
        slot = (slot + 1) & mask
    return slot


@jit
def _build_pairs(blob: Bytes, offsets: Ints) -> Ints:
    """Return the hash table of the pairs of tokens that make a token.

    An entry is left << 40 | right << 20 | merged, -1 if free; see `_merged`.
    """
    size = offsets.size - 1
    capacity = 1
    while capacity < 4 * size:
        capacity *= 2
    index = np.full(capacity, -1, np.int64)
    for token in range(size):
        index[_find_token(blob, offsets, index, offsets[token], offsets[token + 1])] = token
    # One table for all splits of all tokens would be mostly air: the pairs are collected first.
    found = np.empty(blob.size, np.int64)
    count = 0
    for token in range(size):
        start, end = offsets[token], offsets[token + 1]
        for middle in range(start + 1, end):
            left = index[_find_token(blob, offsets, index, start, middle)]
            if left < 0:
                continue
            right = index[_find_token(blob, offsets, index, middle, end)]
            if right >= 0:
                found[count] = (left << 40) | (right << 20) | token
                count += 1
    while capacity < 2 * count:
        capacity *= 2
    pairs = np.full(capacity, -1, np.int64)
    for i in range(count):
        slot = pair_slot(found[i] >> 20, capacity - 1)
        while pairs[slot] >= 0:
            slot = (slot + 1) & (capacity - 1)
        pairs[slot] = found[i]
    return pairs


@jit
def pair_slot(key: Int, mask: Int) -> Int:
    """Return where the search for *key* = left << 20 | right begins in a table of mask + 1 slots."""
    return _hash_step(_hash_step(np.int64(0), key >> 20), key & 0xFFFFF) & mask


@jit
def _merged(pairs: Ints, left: Int, right: Int) -> Int:
    """Return the token that *left* and *right* make, or -1."""
    key = (np.int64(left) << 20) | np.int64(right)
    mask = pairs.size - 1
    slot = pair_slot(key, mask)
    while pairs[slot] >= 0:
        if pairs[slot] >> 20 == key:
            return pairs[slot] & 0xFFFFF
        slot = (slot + 1) & mask
    return np.int64(-1)


@jit
def _encode(data: Bytes, rules: Rules | None, singles: Ints, pairs: Ints, ranks: Ids) -> Ids:
    """Return the ids of *data*; *singles* holds the id of each byte value, *rules* is None for OWN.

    The compiler leaves out the rules that are not asked for.
    """
    out = np.empty(data.size, np.int32)
    count = 0
    made = np.empty(LIMIT, np.int64)  # made[i]: the token that parts i and i + 1 of the pre-token make, or -1
    rank = np.empty(LIMIT, np.int64)
    memo = np.zeros((MEMO, 4), np.int64)  # start, length, first id in out, number of ids
    start = np.int64(0)  # of the type of its ends: kernels are compiled for 0 as well, else
    while start < data.size:
        if rules is None:  # noqa: SIM108 - numba leaves out branches of statements only
            end = pretokens.pretoken_end(data, start)
        else:
            end = pretokens_gpt2.pretoken_end(data, start, rules)
        length = end - start
        known = memo[hash_bytes(data, start, end) & (MEMO - 1)]
        if known[1] == length and same_bytes(data, known[0], start, length):
            for i in range(known[3]):
                out[count + i] = out[known[2] + i]
            count += known[3]
            start = end
            continue
        parts = out[count : count + length]
        for i in range(length):
            parts[i] = singles[data[start + i]]
        for i in range(length - 1):
            made[i] = _merged(pairs, parts[i], parts[i + 1])
            rank[i] = ranks[made[i]] if made[i] >= 0 else NO_RANK
        left = length
        while left > 1:
            best = 0
            for i in range(1, left - 1):
                if rank[i] < rank[best]:
                    best = i
            if rank[best] == NO_RANK:
                break
            parts[best] = made[best]
            left -= 1
            for i in range(best + 1, left):
                parts[i] = parts[i + 1]
                made[i - 1] = made[i]
                rank[i - 1] = rank[i]
            for i in range(max(0, best - 1), min(left - 1, best + 1)):
                made[i] = _merged(pairs, parts[i], parts[i + 1])
                rank[i] = ranks[made[i]] if made[i] >= 0 else NO_RANK
        known[0], known[1], known[2], known[3] = start, length, count, left
        count += left
        start = end
    return out[:count].copy()


@jit
def _decode(ids: Ints, blob: Bytes, offsets: Ints) -> Bytes:
    size = 0
    for token in ids:
        size += offsets[token + 1] - offsets[token]
    out = np.empty(size, np.uint8)
    at = 0
    for token in ids:
        for i in range(offsets[token], offsets[token + 1]):
            out[at] = blob[i]
            at += 1
    return out
