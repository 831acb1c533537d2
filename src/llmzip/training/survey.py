"""What there is to train on: the files of text, their documents, and which of it is held out.

Validation needs text that training never sees. Of many documents, some are held out as a whole; of few, the
end of each. Both are the same rule: of every document a number of leading bytes is trained on.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np

from llmzip.errors import FileError
from llmzip.training.documents import (
    JSON_AS_TEXT,
    BinaryFileError,
    Tally,
    document_parts,
    domain_of,
    require_packages,
    text_files,
)

LEAST_BYTES = 20_000  # less text than this teaches nothing that the mixer would not learn faster
MANY_DOCUMENTS = 20
HELDOUT_SHARE = 0.05
HELDOUT_BYTES = 1 << 18  # at most: validation shall stay cheap
MOST_DOMAINS = 16  # more are no domains but names
SHOWN_FAULTS = 20


@dataclass(frozen=True)
class Survey:
    """The files and the documents' sizes in bytes; the first `trained` bytes of each document are trained on."""

    files: Sequence[Path]
    counts: Sequence[int]  # of each file's documents
    sizes: np.ndarray  # int64 [documents]
    trained: np.ndarray  # int64 [documents]
    domains: Sequence[str]  # of each file
    field: str | None  # that is taken of records
    tally: Tally  # the kinds of files, and what was left out
    faults: Sequence[FileError]  # files that could not be read, and binary ones that were named

    @property
    def train_bytes(self) -> int:
        """Return how much there is to train on."""
        return int(self.trained.sum())

    def summary(self) -> list[str]:
        """Return what there is, and what was left out, each in a line."""
        total = int(self.sizes.sum())
        lines = [
            f"survey: {len(self.files)} files ({listed(self.tally.kinds)}), {len(self.sizes)} documents, "
            f"{size_in_words(total)}, of which {size_in_words(total - self.train_bytes)} held out"
        ]
        if JSON_AS_TEXT in self.tally.kinds:
            lines.append("JSON Lines are trained on as they are (--field NAME takes one field of each line)")
        return lines + ([f"left out: {listed(self.tally.left_out)}"] if self.tally.left_out else [])

    def warnings(self) -> list[FileError]:
        """Return what is wrong with each file that was named or should be text, but for very many."""
        shown = [FileError(error.filename, f"{error.text}; skipped") for error in self.faults[:SHOWN_FAULTS]]
        more = len(self.faults) - len(shown)
        if more:
            shown.append(FileError(self.faults[-1].filename, f"skipped, as {more - 1} others that cannot be read"))
        return shown

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
            for limit, parts in zip(known, _each(path, self.field), strict=False):
                yield file, limit, parts


def _leading(parts: Iterator[bytes], limit: int) -> Iterator[bytes]:
    for part in parts:
        if limit > 0:
            yield part[:limit]
        limit -= len(part)


def survey(paths: Sequence[Path], seed: int, without: Sequence[Path] = (), field: str | None = None) -> Survey:
    """Survey `paths`, files and folders; raises FileError for what cannot be trained on.

    Files that are not text, or cannot be read to their end, are left out: of thousands some may be damaged. What a path
    holds of `without` is left out, too. `field` is that of :func:`document_parts`.
    """
    pairs = [(root, file) for root in paths for file in _found_in(root, [path.resolve() for path in without])]
    for _, file in pairs:
        require_packages(file)  # at once: it may take long until the file's turn comes
    files: list[Path] = []
    domains: list[str] = []
    counts, sizes = [], array("q")
    tally, faults = Tally(), list[FileError]()
    for root, file in pairs:
        own = Tally()
        try:
            found = [sum(map(len, parts)) for parts in _each(file, field, own)]
        except FileError as error:
            binary = isinstance(error, BinaryFileError)
            tally.left_out["binary files" if binary else "files that cannot be read"] += 1
            if not binary or file == root:
                faults.append(error)
            continue
        tally.add(own)
        files.append(file)
        domains.append(_domain(file, root))
        counts.append(len(found))
        sizes.extend(found)
    documents = np.array(sizes, np.int64)
    _check(str(paths[0]), documents, files, tally, faults)
    if len(set(domains)) > MOST_DOMAINS:
        domains = ["text"] * len(files)
    return Survey(files, counts, documents, _trained(documents, seed), domains, field, tally, faults)


def _found_in(root: Path, without: Sequence[Path]) -> Iterator[Path]:
    """Yield the files in and below `root`, but for what it holds of `without`."""
    if not root.exists():
        raise FileError(str(root), "No such file or directory")
    if not root.is_dir() and not root.is_file():
        raise FileError(str(root), "is no regular file (give files of text, or folders with them)")
    resolved = root.resolve()
    apart = [each for each in without if each not in resolved.parents]  # what was fetched lies in the work folder
    for file in text_files([root]):
        if not any(file.resolve().is_relative_to(each) for each in apart):
            yield file


def _check(name: str, documents: np.ndarray, files: Sequence[Path], tally: Tally, faults: Sequence[FileError]) -> None:
    """Raise FileError if there is not enough to train on."""
    total = int(documents.sum())
    if not files and sum(tally.left_out.values()) == len(faults) == 1:
        raise faults[0]
    if not files and not faults:
        kinds = "holds binary files only" if tally.left_out else "holds no files"
        raise FileError(name, f"{kinds} (give files of text, or folders with them)")
    if total < LEAST_BYTES:
        text = f"{total} bytes of text are too little to train on"
        if faults:
            first = faults[0]
            text += f", and {len(faults)} files cannot be read: {first.filename} {first.text}, ..."
        raise FileError(name, f"{text} (give at least {LEAST_BYTES})")


def _each(path: Path, field: str | None, tally: Tally | None = None) -> Iterator[Iterator[bytes]]:
    """Yield the documents of a file, each in parts; take each before asking for the next."""
    for _, parts in groupby(document_parts(path, field, tally), key=itemgetter(0)):
        yield map(itemgetter(1), parts)


def _domain(file: Path, root: Path) -> str:
    """Return the kind of text a file holds: its folder's name below `root`, else what its own name says."""
    inside = file.relative_to(root).parts if file != root else (file.name,)
    return inside[0] if len(inside) > 1 else domain_of(file)


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


def listed(counts: Mapping[str, int]) -> str:
    """Return counts in words: ``1 Parquet, 3 text``."""
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def size_in_words(count: int) -> str:
    """Return a number of bytes in MB or KB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} KB"
