"""Prove that no passage of the evaluation files is in a corpus: compare all 48-byte shingles of both, byte for byte.

    python scripts/check_contamination.py corpus/ eval/alice29.txt eval/book1 ...

Prints a Markdown table: how many of a file's shingles are anywhere in the corpus, and the longest passage that is.
Shingles of fewer than 8 different bytes are trivial (rulers, indentation, rows of zeros: text needs more): to share
them proves nothing, so they are counted apart and begin no passage. Names, addresses, markup and idioms are shared by
texts that know nothing of each other; a passage of more than 128 bytes was copied from somewhere: the exit code is 1.
Nothing is normalised.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
from tqdm import tqdm

from llmzip.errors import FileError
from llmzip.training.documents import documents, is_plain, text_files

SHINGLE = 48
LEAST_DIFFERENT = 8
COPIED = 128  # bytes; no passage as long is shared by chance
FILTER_BITS = 26
SHIFT = np.uint64(64 - FILTER_BITS)
# A polynomial in an odd number, modulo 2 ** 64: what leaves the window can be subtracted.
BASE = np.uint64(0x9E3779B97F4A7C15)
LEAVING = np.uint64(pow(int(BASE), SHINGLE, 1 << 64))
EXCERPT = 60  # characters
BREAKS_TABLES = str.maketrans("|`", "!'")


@dataclass(frozen=True)
class Shingles:
    """All shingles of some files, equal ones together, and a filter that sorts out nearly all others."""

    text: np.ndarray  # uint8, the files joined
    bounds: np.ndarray  # int64 [files + 1], where each begins in it
    order: np.ndarray  # int64, positions of the shingles, those of equal ones in a row
    first: np.ndarray  # int64 [groups + 1], where each group begins in `order`
    hashes: np.ndarray  # uint64 [groups], ascending
    trivial: np.ndarray  # bool [groups]
    filter: np.ndarray  # bool [1 << FILTER_BITS], by the hash's leading bits

    @classmethod
    def of(cls, texts: list[np.ndarray]) -> Shingles:
        """Return those of `texts`, uint8 each."""
        text = np.concatenate(texts)
        bounds = np.cumsum([0, *map(len, texts)])
        where = np.concatenate([np.arange(a, max(a, b - SHINGLE + 1)) for a, b in pairwise(bounds)])
        hashes = rolling_hashes(text)[where]
        by_hash = np.argsort(hashes, kind="stable")
        order, hashes = where[by_hash], hashes[by_hash]
        same = hashes[1:] == hashes[:-1]
        before, after = order[:-1][same], order[1:][same]
        if any((text[before + i] != text[after + i]).any() for i in range(SHINGLE)):
            raise SystemExit("two different shingles have the same hash (change BASE)")
        first = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
        groups = first[:-1]
        seen = np.zeros(1 << FILTER_BITS, bool)
        seen[hashes[groups] >> SHIFT] = True
        return cls(text, bounds, order, first, hashes[groups], are_trivial(text, order[groups]), seen)


@numba.njit
def next_hash(hash_, text, i):
    """Move the window's end to behind byte `i`."""
    if i >= SHINGLE:
        hash_ -= np.uint64(text[i - SHINGLE]) * LEAVING
    return (hash_ + np.uint64(text[i])) * BASE


@numba.njit
def rolling_hashes(text):
    """Return the hash of the shingle at each position; the last ones are none."""
    found = np.zeros(len(text), np.uint64)
    hash_ = np.uint64(0)
    for i in range(len(text)):
        hash_ = next_hash(hash_, text, i)
        if i >= SHINGLE - 1:
            found[i - SHINGLE + 1] = hash_
    return found


@numba.njit
def are_trivial(text, where):
    """Return for each shingle whether it has too few different bytes."""
    found = np.empty(len(where), np.bool_)
    last = np.full(256, -1, np.int64)
    for k in range(len(where)):
        different = 0
        for i in range(where[k], where[k] + SHINGLE):
            different += last[text[i]] != k
            last[text[i]] = k
        found[k] = different < LEAST_DIFFERENT
    return found


@numba.njit
def scan(other, text, bounds, order, first, hashes, trivial, seen, shared, longest):
    """Find shingles in `other`: mark their groups in `shared`, keep (length, position) of each file's `longest`."""
    hash_, is_trivial = np.uint64(0), False
    for end in range(len(other)):
        hash_ = next_hash(hash_, other, end)
        at, was_trivial, is_trivial = end - SHINGLE + 1, is_trivial, False
        if at < 0 or not seen[hash_ >> SHIFT]:
            continue
        group = np.searchsorted(hashes, hash_)
        if group == len(hashes) or hashes[group] != hash_:
            continue
        is_trivial = trivial[group]
        if is_trivial and shared[group]:
            continue  # there may be millions of them
        begin = order[first[group]]
        if not np.array_equal(text[begin : begin + SHINGLE], other[at : at + SHINGLE]):
            continue
        shared[group] = True
        if is_trivial:
            continue
        for j in range(first[group], first[group + 1]):
            begin = order[j]
            file = np.searchsorted(bounds, begin, side="right") - 1
            if at > 0 and begin > bounds[file] and other[at - 1] == text[begin - 1] and not was_trivial:
                continue  # measured from where it begins
            length = SHINGLE
            while at + length < len(other) and begin + length < bounds[file + 1]:
                if other[at + length] != text[begin + length]:
                    break
                length += 1
            if length > longest[file, 0]:
                longest[file] = length, begin


def texts(file: Path, field: str | None) -> Iterator[np.ndarray]:
    """Yield what a file of the corpus holds, uint8: all of a plain one, else each document as it is trained on."""
    if is_plain(file):
        yield np.asarray(np.memmap(file, np.uint8, "r"))
        return
    try:
        for text in documents(file, field):
            if len(text) >= SHINGLE:
                yield np.frombuffer(text, np.uint8)
    except FileError as error:  # nor is it trained on
        print(f"{file}: {error}; skipped", file=sys.stderr)


def main() -> None:
    """Print a row for each evaluation file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("evaluation", nargs="+", type=Path)
    parser.add_argument("--field", help="of JSON lines, else they are text; of Parquet files, else text")
    args = parser.parse_args()
    names = text_files(args.evaluation)
    s = Shingles.of([np.fromfile(name, np.uint8) for name in names])
    shared = np.zeros(len(s.hashes), bool)
    longest, places = np.zeros((len(names), 2), np.int64), [""] * len(names)
    files = [file for file in text_files([args.corpus]) if file.stat().st_size >= SHINGLE]
    with tqdm(total=sum(file.stat().st_size for file in files), unit="B", unit_scale=True) as bar:
        for file in files:
            before = longest[:, 0].copy()
            for other in texts(file, args.field):
                scan(other, s.text, s.bounds, s.order, s.first, s.hashes, s.trivial, s.filter, shared, longest)
            for i in np.flatnonzero(longest[:, 0] > before):
                places[i] = str(file.relative_to(args.corpus))
            bar.update(file.stat().st_size)

    kinds = np.zeros((2, len(s.text)), bool)  # what is shared at each position: anything, trivial things
    sizes = np.diff(s.first)
    kinds[:, s.order] = np.repeat(shared, sizes), np.repeat(shared & s.trivial, sizes)
    print("| file | shingles | shared | of these trivial | longest, bytes | in | it begins with |")
    print("|---|---|---|---|---|---|---|")
    for i, name in enumerate(names):
        inside = slice(s.bounds[i], s.bounds[i + 1])
        found, trivial = kinds[:, inside].sum(axis=1).tolist()
        count = max(0, len(s.text[inside]) - SHINGLE + 1)
        share = f"{found} ({100 * found / count:.3f} %)" if found else "0"
        length, begin = longest[i].tolist()
        passage = s.text[begin : begin + length].tobytes().decode("utf-8", "replace")[:EXCERPT]
        excerpt = f"`{repr(passage)[1:-1].translate(BREAKS_TABLES)}`" if length else ""
        print(f"| {name.name} | {count} | {share} | {trivial} | {length or ''} | {places[i]} | {excerpt} |")
    sys.exit(bool((longest[:, 0] > COPIED).any()))


if __name__ == "__main__":
    main()
