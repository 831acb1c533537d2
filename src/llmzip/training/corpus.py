"""Text for training: files to documents to packed tokens to parallel streams.

Documents of one file are separated by a line that holds only the byte 0x1E (record separator); a file without
one is a document. Documents are cut into pieces, each starting with BEGIN and a fresh state, so that training
sees what coding sees: lanes start at the top of a file and in the middle of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from llmzip.tokenizer import Tokenizer

SEPARATOR = b"\x1e\n"


def text_files(paths: Iterable[Path]) -> list[Path]:
    """List the regular files below `paths` in a fixed order."""
    found: list[Path] = []
    for path in paths:
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found


def documents(path: Path) -> Iterator[bytes]:
    """Yield the documents of a file."""
    yield from (d for d in path.read_bytes().split(SEPARATOR) if d)


def pack(tokenizer: Tokenizer, paths: Iterable[Path], target: Path, piece_bytes: int = 65536) -> None:
    """Tokenise files into the folder `target`.

    It gets ``tokens.bin`` (uint16) and ``pieces.npy`` (int64 ``[n, 2]``: start, length).
    """
    target.mkdir(parents=True, exist_ok=True)
    pieces, total = [], 0
    with open(target / "tokens.bin", "wb") as out:
        for path in paths:
            for document in documents(path):
                for at in range(0, len(document), piece_bytes):
                    ids = tokenizer.encode(document[at : at + piece_bytes])
                    out.write(ids.astype(np.uint16).tobytes())
                    pieces.append((total, len(ids)))
                    total += len(ids)
    np.save(target / "pieces.npy", np.array(pieces, np.int64))


class Packed:
    """Open what :func:`pack` wrote; `tokens` stays on disk."""

    def __init__(self, folder: Path):
        self.tokens = np.memmap(folder / "tokens.bin", np.uint16, "r")
        self.pieces = np.load(folder / "pieces.npy")


class Streams:
    """Deal shuffled pieces to `lanes` endless token streams, deterministically for a seed.

    :meth:`next` returns inputs and targets int64 ``[steps, lanes]``; a lane that ends a piece goes on with
    BEGIN and the next piece of the shuffle. :meth:`state` and :meth:`restore` continue at the same token.
    """

    def __init__(self, packed: Packed, begin: int, lanes: int, seed: int):
        self._packed, self._begin, self._seed = packed, begin, seed
        self._epoch, self._dealt = 0, 0
        self._order = self._shuffle()
        self._lane = [(-1, 0)] * lanes  # (piece, tokens of BEGIN + piece already given)
        self._pending = [np.empty(0, np.int64)] * lanes

    def _shuffle(self) -> np.ndarray:
        return np.random.default_rng([self._seed, self._epoch]).permutation(len(self._packed.pieces))

    def _deal(self) -> int:
        if self._dealt == len(self._order):
            self._epoch, self._dealt = self._epoch + 1, 0
            self._order = self._shuffle()
        self._dealt += 1
        return int(self._order[self._dealt - 1])

    def _sequence(self, piece: int) -> np.ndarray:
        start, length = self._packed.pieces[piece]
        body = self._packed.tokens[start : start + length].astype(np.int64)
        return np.concatenate([[self._begin], body])

    def next(self, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the next `steps` inputs and targets of every lane."""
        rows = np.empty((len(self._lane), steps + 1), np.int64)
        for b, (piece, at) in enumerate(self._lane):
            filled = 0
            while filled < steps + 1:
                if at >= len(self._pending[b]):
                    piece, at = self._deal(), 0
                    self._pending[b] = self._sequence(piece)
                part = self._pending[b][at : at + steps + 1 - filled]
                rows[b, filled : filled + len(part)] = part
                filled, at = filled + len(part), at + len(part)
            self._lane[b] = (piece, at - 1)  # the last target is the next input
        both = torch.from_numpy(np.ascontiguousarray(rows.T))
        return both[:-1], both[1:]

    def state(self) -> dict:
        """Return the position, small and picklable."""
        return {"epoch": self._epoch, "dealt": self._dealt, "lanes": list(self._lane)}

    def restore(self, state: dict) -> None:
        """Continue at a position that :meth:`state` returned."""
        self._epoch, self._dealt = state["epoch"], state["dealt"]
        self._order = self._shuffle()
        self._lane = list(state["lanes"])
        self._pending = [self._sequence(p) if p >= 0 else np.empty(0, np.int64) for p, _ in self._lane]
