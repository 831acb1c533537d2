"""Text for training: documents to packed tokens to parallel streams.

Documents are cut into pieces, each starting with BOS and a fresh state, so that training sees what coding sees:
lanes start at the top of a file and in the middle of one. Nothing here holds more than a piece per lane in memory:
the tokens stay on disk.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from llmzip.atomic_output import output_file
from llmzip.vocabulary.tokenizer import Tokenizer


def cut_pieces(parts: Iterable[bytes], longest: int, lengths: np.random.Generator) -> Iterator[bytes]:
    """Cut a document into pieces of random lengths between a quarter of `longest` and `longest` bytes.

    So the state is reset anywhere: that is how lanes start.
    """
    buffer = bytearray()
    length = int(lengths.integers(max(1, longest // 4), longest + 1))
    for part in parts:
        buffer += part
        while len(buffer) >= length:
            yield bytes(buffer[:length])
            del buffer[:length]
            length = int(lengths.integers(max(1, longest // 4), longest + 1))
    if buffer:
        yield bytes(buffer)


def pack(tokenizer: Tokenizer, texts: Iterable[Iterable[bytes]], target: Path, longest: int, seed: int) -> None:
    """Tokenise documents, each given in parts, into the folder `target`, piece by piece.

    It gets ``tokens.bin`` (uint16) and ``pieces.npy`` (int64 ``[n, 2]``: start, length), each when it is
    complete. A piece has at most `longest` bytes.
    """
    lengths = np.random.default_rng(seed)
    starts = array("q", [0])
    with output_file(str(target / "tokens.bin"), force=True) as out:
        for parts in texts:
            for piece in cut_pieces(parts, longest, lengths):
                ids = tokenizer.encode(piece)
                out.write(ids.astype(np.uint16).tobytes())
                starts.append(starts[-1] + len(ids))
    bounds = np.array(starts, np.int64)
    with output_file(str(target / "pieces.npy"), force=True) as out:
        np.save(out, np.stack([bounds[:-1], np.diff(bounds)], axis=1))


class Packed:
    """Open what :func:`pack` wrote; `tokens` stays on disk."""

    def __init__(self, folder: Path):
        self.tokens = np.memmap(folder / "tokens.bin", np.uint16, "r")
        self.pieces = np.load(folder / "pieces.npy")

    def piece(self, i: int) -> npt.NDArray[np.uint16]:
        """Return the tokens of a piece."""
        start, length = self.pieces[i]
        return np.asarray(self.tokens[start : start + length])

    def sample(self, token_bytes: np.ndarray, most: int, seed: int) -> npt.NDArray[np.uint16]:
        """Return the tokens of random pieces in their order, `most` bytes of text or all there is.

        `token_bytes` int64 ``[vocab]`` are the lengths of the tokens.
        """
        chosen: dict[int, npt.NDArray[np.uint16]] = {}
        for i in np.random.default_rng(seed).permutation(len(self.pieces)).tolist():
            ids = self.piece(i)
            ends = np.cumsum(token_bytes[ids])
            chosen[i] = ids[: np.searchsorted(ends, most, side="right")]
            most -= int(ends[-1])
            if most <= 0:
                break
        return np.concatenate([chosen[i] for i in sorted(chosen)])


class Streams:
    """Deal shuffled pieces to `lanes` endless token streams, deterministically for a seed.

    :meth:`next` returns inputs and targets int64 ``[steps, lanes]``; a lane that ends a piece goes on with
    BOS and the next piece of the shuffle. :meth:`state` and :meth:`restore` continue at the same token.
    """

    def __init__(self, packed: Packed, bos: int, lanes: int, seed: int):
        self._packed, self._bos, self._seed = packed, bos, seed
        self._epoch, self._dealt = 0, 0
        self._order = self._shuffle()
        self._lane = [(-1, 0)] * lanes  # (piece, tokens of BOS + piece already given)
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
        return np.concatenate([[self._bos], self._packed.piece(piece).astype(np.int64)])

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

    def state(self) -> dict[str, Any]:
        """Return the position, small and picklable."""
        return {"epoch": self._epoch, "dealt": self._dealt, "lanes": list(self._lane)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue at a position that :meth:`state` returned."""
        self._epoch, self._dealt = state["epoch"], state["dealt"]
        self._order = self._shuffle()
        self._lane = list(state["lanes"])
        self._pending = [self._sequence(p) if p >= 0 else np.empty(0, np.int64) for p, _ in self._lane]
