"""Learn a vocabulary from text: byte-pair encoding with incrementally kept pair counts.

The text is cut into the pre-tokens of `llmzip.vocabulary.tokenizer`; equal pre-tokens become one *word* with a
count. All 256 single bytes are tokens. Then the neighbouring pair with the highest count (at equal
counts the one whose concatenation is smaller, then the one whose left part is shorter) is merged
everywhere, until the vocabulary is full.

The words are kept as runs of symbols that shrink in place. Each pair has a count and a chain of the
words it was seen in; a chain may name a word that has lost the pair since, which costs a look but
no harm.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np

from llmzip.jit import jit
from llmzip.vocabulary.pretokens import Bytes, Int, Ints, as_bytes, split_pretokens
from llmzip.vocabulary.tokenizer import MAX_TOKENS, Ids, hash_bytes, pair_slot, same_bytes

# The kernels take their arrays in two tuples, in the order of `_Merges.words` and `_Merges.table`.
Words = tuple[Ids, Ints, Ints, Ints]
Table = tuple[Ints, Ints, Ids, Ints, Ids, Ids, Ints]


def train_bpe(
    chunks: Iterable[bytes], vocab_size: int, *, max_length: int = 32, min_count: int = 2
) -> tuple[list[bytes], Ids]:
    """Return the tokens in byte order and the int32 rank of each (single bytes: -1).

    Args:
        chunks: pieces of text, up to about 500 MB together, which are held in memory. No token is learnt
            across two of them.
        vocab_size: the number of tokens wanted, single bytes included; fewer if the text yields fewer.
        max_length: the longest token in bytes.
        min_count: pairs seen less often are not merged.

    Raises ValueError if *vocab_size* is below 256 or too large.
    """
    if not 256 <= vocab_size <= MAX_TOKENS:
        raise ValueError(f"vocab_size must be between 256 and {MAX_TOKENS}, not {vocab_size}")
    merges = _Merges(chunks)
    tokens = [bytes([i]) for i in range(256)]
    ids = {token: i for i, token in enumerate(tokens)}
    heap: list[tuple[int, bytes, int]] = []  # (-count, concatenation, length of the left part)

    def push(slots: Ints) -> None:
        for slot in slots.tolist():
            count, left, right = merges.entry(slot)
            joined = tokens[left] + tokens[right]
            if count >= min_count and len(joined) <= max_length:
                heapq.heappush(heap, (-count, joined, len(tokens[left])))

    push(merges.slots())
    while heap and len(tokens) < vocab_size:
        seen, joined, middle = heapq.heappop(heap)
        left, right = ids[joined[:middle]], ids[joined[middle:]]
        count = merges.count(left, right)
        if count != -seen:
            # Every pair is pushed when its count rises; one that has fallen since moves down here.
            if min_count <= count < -seen:
                heapq.heappush(heap, (-count, joined, middle))
            continue
        # Two pairs can spell the same token; the second one is merged into the same id.
        token = ids.setdefault(joined, len(tokens))
        if token == len(tokens):
            tokens.append(joined)
        push(merges.apply(left, right, token, len(tokens)))
    ranks = np.arange(-256, len(tokens) - 256, dtype=np.int32)
    ranks[:256] = -1
    order = sorted(range(len(tokens)), key=tokens.__getitem__)
    return [tokens[i] for i in order], ranks[order]


class _Merges:
    """The words as runs of symbols, and the table of the pairs in them."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        pieces = [chunk for chunk in chunks if chunk]
        bounds = [np.zeros(1, np.int64)]
        at = 0
        for piece in pieces:
            bounds.append(split_pretokens(piece) + at)
            at += len(piece)
        data = as_bytes(b"".join(pieces))
        starts, ends, self.counts = _count_words(data, np.concatenate(bounds))
        self.symbols, self.starts, self.lengths = _lay_out(data, starts, ends)
        self.link_word = np.empty(2 * self.symbols.size + 1, np.int32)  # links of the chains
        self.link_next = np.empty(2 * self.symbols.size + 1, np.int32)
        # The next free link (0 ends a chain), the number of pairs, the number of merges done.
        self.state = np.array([1, 0, 0], np.int64)
        # Before the first merge there are at most 2**16 pairs.
        self._make_table(1 << (2 * min(self.symbols.size, 1 << 16)).bit_length())
        _count_pairs(self.words, self.table)

    @property
    def words(self) -> Words:
        """The arrays that describe the words."""
        return self.symbols, self.starts, self.lengths, self.counts

    @property
    def table(self) -> Table:
        """The arrays that describe the pairs."""
        return (
            self.keys,
            self.pair_counts,
            self.heads,
            self.stamps,
            self.link_word,
            self.link_next,
            self.state,
        )

    def _make_table(self, capacity: int) -> None:
        self.keys = np.full(capacity, -1, np.int64)  # left << 20 | right, -1 if free
        self.pair_counts = np.zeros(capacity, np.int64)
        self.heads = np.zeros(capacity, np.int32)
        self.stamps = np.zeros(capacity, np.int64)  # the last merge that made the pair commoner

    def slots(self) -> Ints:
        """Return the slots of all pairs."""
        return np.flatnonzero(self.keys >= 0)

    def entry(self, slot: int) -> tuple[int, int, int]:
        """Return the count, the left and the right symbol of the pair at *slot*."""
        key = int(self.keys[slot])
        return int(self.pair_counts[slot]), key >> 20, key & 0xFFFFF

    def count(self, left: int, right: int) -> int:
        """Return how often the pair occurs now."""
        return int(self.pair_counts[_slot(self.keys, left, right)])

    def apply(self, left: int, right: int, token: int, size: int) -> Ints:
        """Merge the pair into *token* in all words; return the slots of the pairs that became commoner."""
        # All pairs that become commoner hold *token*: their number is bounded by the vocabulary's size.
        if 2 * (self.state[1] + 2 * size) > self.keys.size:
            old = self.keys, self.pair_counts, self.heads
            self._make_table(4 * self.keys.size)
            _move_table(old, self.table)
        # One merge adds at most one link per symbol.
        if self.state[0] + self.symbols.size > self.link_word.size:
            self.link_word = np.concatenate((self.link_word, np.empty_like(self.link_word)))
            self.link_next = np.concatenate((self.link_next, np.empty_like(self.link_next)))
        touched = np.empty(2 * size, np.int64)
        number = _apply(self.words, self.table, left, right, token, touched)
        return touched[:number]


@jit
def _count_words(data: Bytes, bounds: Ints) -> tuple[Ints, Ints, Ints]:
    """Return start, end and count of each different data[bounds[i]:bounds[i + 1]], first seen first."""
    capacity = 1
    while capacity < 2 * bounds.size:
        capacity *= 2
    index = np.full(capacity, -1, np.int64)
    starts = np.empty(bounds.size, np.int64)
    ends = np.empty(bounds.size, np.int64)
    counts = np.zeros(bounds.size, np.int64)
    number = 0
    for i in range(bounds.size - 1):
        start, end = bounds[i], bounds[i + 1]
        slot = hash_bytes(data, start, end) & (capacity - 1)
        while index[slot] >= 0:
            word = index[slot]
            if ends[word] - starts[word] == end - start and same_bytes(data, starts[word], start, end - start):
                break
            slot = (slot + 1) & (capacity - 1)
        if index[slot] < 0:
            index[slot] = number
            starts[number] = start
            ends[number] = end
            number += 1
        counts[index[slot]] += 1
    return starts[:number].copy(), ends[:number].copy(), counts[:number].copy()


@jit
def _lay_out(data: Bytes, starts: Ints, ends: Ints) -> tuple[Ids, Ints, Ints]:
    """Return the words' symbols in one int32 array, with their starts and lengths there."""
    lengths = ends - starts
    symbols = np.empty(lengths.sum(), np.int32)
    places = np.empty(starts.size, np.int64)
    at = 0
    for word in range(starts.size):
        places[word] = at
        for i in range(starts[word], ends[word]):
            symbols[at] = data[i]
            at += 1
    return symbols, places, lengths


@jit
def _slot(keys: Ints, left: Int, right: Int) -> Int:
    """Return the slot of the pair, or the free slot for it."""
    key = (np.int64(left) << 20) | np.int64(right)
    slot = pair_slot(key, keys.size - 1)
    while keys[slot] >= 0 and keys[slot] != key:
        slot = (slot + 1) & (keys.size - 1)
    return slot


@jit
def _add(table: Table, left: Int, right: Int, word: Int, count: Int) -> Int:
    """Count the pair *count* times more, seen in *word*; return its slot."""
    keys, pair_counts, heads, _, link_word, link_next, state = table
    slot = _slot(keys, left, right)
    if keys[slot] < 0:
        keys[slot] = (np.int64(left) << 20) | np.int64(right)
        state[1] += 1
    pair_counts[slot] += count
    if heads[slot] == 0 or link_word[heads[slot]] != word:
        link_word[state[0]] = word
        link_next[state[0]] = heads[slot]
        heads[slot] = state[0]
        state[0] += 1
    return slot


@jit
def _count_pairs(words: Words, table: Table) -> None:
    symbols, starts, lengths, counts = words
    for word in range(starts.size):
        for i in range(starts[word], starts[word] + lengths[word] - 1):
            _add(table, symbols[i], symbols[i + 1], word, counts[word])


@jit
def _move_table(old: tuple[Ints, Ints, Ids], table: Table) -> None:
    """Copy the pairs of a smaller table; the stamps start afresh, as merges are numbered upwards."""
    old_keys, old_counts, old_heads = old
    keys, pair_counts, heads, _, _, _, _ = table
    for i in range(old_keys.size):
        if old_keys[i] >= 0:
            slot = _slot(keys, old_keys[i] >> 20, old_keys[i] & 0xFFFFF)
            keys[slot] = old_keys[i]
            pair_counts[slot] = old_counts[i]
            heads[slot] = old_heads[i]


@jit
def _apply(words: Words, table: Table, left: Int, right: Int, token: Int, touched: Ints) -> Int:
    """Merge the pair into *token* in the words of its chain; fill *touched* and return its length."""
    symbols, starts, lengths, counts = words
    keys, pair_counts, heads, stamps, link_word, link_next, state = table
    state[2] += 1
    number = 0
    link = heads[_slot(keys, left, right)]
    while link:
        word = link_word[link]
        link = link_next[link]
        start, end, count = starts[word], starts[word] + lengths[word], counts[word]
        i = start
        while i < end - 1 and not (symbols[i] == left and symbols[i + 1] == right):
            i += 1
        if i >= end - 1:
            continue
        for j in range(start, end - 1):
            pair_counts[_slot(keys, symbols[j], symbols[j + 1])] -= count
        to = i
        while i < end:
            symbols[to] = symbols[i]
            if i < end - 1 and symbols[i] == left and symbols[i + 1] == right:
                symbols[to] = token
                i += 1
            i += 1
            to += 1
        lengths[word] = to - start
        for j in range(start, to - 1):
            if symbols[j] == token or symbols[j + 1] == token:
                slot = _add(table, symbols[j], symbols[j + 1], word, count)
                if stamps[slot] != state[2]:
                    stamps[slot] = state[2]
                    touched[number] = slot
                    number += 1
            else:
                pair_counts[_slot(keys, symbols[j], symbols[j + 1])] += count
    return number
