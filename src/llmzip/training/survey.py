"""What there is to train on: the files of text, their documents, and which of it is held out.

Validation needs text that training never sees. Of many documents, some are held out as a whole; of few, the
end of each. Both are the same rule: of every document a number of leading bytes is trained on.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np

from llmzip.errors import FileError
from llmzip.training.corpus import document_parts, text_files

LEAST_BYTES = 20_000  # less text than this teaches nothing that the mixer would not learn faster
MANY_DOCUMENTS = 20
HELDOUT_SHARE = 0.05
HELDOUT_BYTES = 1 << 18  # at most: validation shall stay cheap
MOST_DOMAINS = 16  # more are no domains but names
HEAD = 8192  # bytes that distinguish text from other data


@dataclass(frozen=True)
class Survey:
    """The files and the documents' sizes in bytes; the first `trained` bytes of each document are trained on."""

    files: Sequence[Path]
    skipped: int  # files that are not text
    counts: Sequence[int]  # of each file's documents
    sizes: np.ndarray  # int64 [documents]
    trained: np.ndarray  # int64 [documents]
    domains: Sequence[str]  # of each file

    @property
    def train_bytes(self) -> int:
        """Return how much there is to train on."""
        return int(self.trained.sum())

    def fingerprint(self) -> str:
        """Return a hash of the names and sizes: a training goes on only with the text it began with."""
        names = "\0".join(map(str, self.files)).encode()
        return hashlib.sha256(names + b"\0" + self.sizes.tobytes()).hexdigest()

    def training_texts(self) -> Iterator[Iterator[bytes]]:
        """Yield what is trained on of each document, in parts; take each before asking for the next."""
        for _, limit, parts in self._documents():
            if limit:
                yield _leading(parts, limit)

    def heldout_texts(self) -> dict[str, list[bytes]]:
        """Return what is held out, by domain."""
        result: dict[str, list[bytes]] = {}
        for file, limit, parts in self._documents():
            rest, at = bytearray(), 0
            for part in parts:
                rest += part[max(0, limit - at) :]
                at += len(part)
            if rest:
                result.setdefault(self.domains[file], []).append(bytes(rest))
        return dict(sorted(result.items()))

    def _documents(self) -> Iterator[tuple[int, int, Iterator[bytes]]]:
        limits = iter(self.trained.tolist())
        for file, (path, count) in enumerate(zip(self.files, self.counts, strict=True)):
            known = list(islice(limits, count))
            # What a file, a log perhaps, has grown by since the survey is left out.
            for limit, (_, parts) in zip(known, groupby(document_parts(path), key=itemgetter(0)), strict=False):
                yield file, limit, (part for _, part in parts)


def _leading(parts: Iterator[bytes], limit: int) -> Iterator[bytes]:
    for part in parts:
        if limit > 0:
            yield part[:limit]
        limit -= len(part)


def survey(paths: Sequence[Path], seed: int, without: Sequence[Path] = ()) -> Survey:
    """Survey `paths`, files and folders; raises FileError for what cannot be trained on.

    Files that are not text are left out of folders, and refused if named. What is called or lies below one of
    `without` is left out.
    """
    absent = [path.resolve() for path in without]
    files: list[Path] = []
    domains: list[str] = []
    skipped = 0
    for path in paths:
        if not path.exists():
            raise FileError(str(path), "No such file or directory")
        if not path.is_dir() and not path.is_file():
            raise FileError(str(path), "is no regular file (give files of text, or folders with them)")
        for file in text_files([path]):
            if any(file.resolve().is_relative_to(each) for each in absent):
                continue
            with file.open("rb") as opened:
                binary = b"\0" in opened.read(HEAD)
            if binary and file == path:
                raise FileError(str(path), "is binary: a model is trained on text (give UTF-8 text)")
            if binary:
                skipped += 1
                continue
            files.append(file)
            domains.append(_domain(file, path))
    name = str(paths[0])
    if not files:
        kinds = "holds binary files only" if skipped else "holds no files"
        raise FileError(name, f"{kinds} (give files of text, or folders with them)")
    counts, sizes = [], array("q")
    for file in files:
        before = len(sizes)
        for _, parts in groupby(document_parts(file), key=itemgetter(0)):
            sizes.append(sum(len(part) for _, part in parts))
        counts.append(len(sizes) - before)
    documents = np.array(sizes, np.int64)
    total = int(documents.sum())
    if total < LEAST_BYTES:
        raise FileError(name, f"{total} bytes of text are too little to train on (give at least {LEAST_BYTES})")
    if len(set(domains)) > MOST_DOMAINS:
        domains = ["text"] * len(files)
    return Survey(files, skipped, counts, documents, _trained(documents, seed), domains)


def _domain(file: Path, root: Path) -> str:
    """Return the kind of text a file holds: its folder's name below `root`, else the part before ``_`` of its own."""
    inside = file.relative_to(root).parts if file != root else (file.name,)
    return inside[0] if len(inside) > 1 else file.stem.split("_")[0]


def _trained(sizes: np.ndarray, seed: int) -> np.ndarray:
    """Return the number of leading bytes of each document that are trained on."""
    total = int(sizes.sum())
    goal = min(HELDOUT_BYTES, int(HELDOUT_SHARE * total))
    trained = sizes.copy()
    if len(sizes) >= MANY_DOCUMENTS:
        held = 0
        for i in np.random.default_rng([seed, len(sizes)]).permutation(len(sizes)).tolist():
            if held + sizes[i] <= 1.2 * goal:
                trained[i] = 0
                held += int(sizes[i])
            if held >= goal:
                break
        if held >= goal / 2:
            return trained
        trained = sizes.copy()
    return trained - np.ceil(sizes * (goal / total)).astype(np.int64)
