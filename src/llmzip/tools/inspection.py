"""Where the bits of a text go: what each token costs, and what each part of the compressor predicted.

The text is encoded as for an archive, lanes and all, but one token at a time, with a look at the coder and at the
kernel's trace after each. Beside it, the language model's guesses are computed in floating point, and the bytes
are coded once more without a language model.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llmzip.coding import lanes, range_coder, token_kernels
from llmzip.coding.byte_coder import ByteCoder
from llmzip.coding.progress import Progress
from llmzip.coding.token_coder import FrameCoder, TokenCoder
from llmzip.mixing.layout import MATCHES
from llmzip.mixing.logistic import STRETCHED_BIT
from llmzip.mixing.trace import PREDICTORS
from llmzip.network.heads import steps_of
from llmzip.tools.token_probabilities import Floats, TokenProbabilities

GUESSES = 4
SEGMENT_ROWS = 64  # of probabilities at once: each has an entry for every token
PASSAGE_BYTES = 60
MATCH_SHOWN = 12  # bytes


@dataclass(frozen=True)
class Guess:
    """A token that the language model expected, with its probability."""

    text: bytes
    probability: float


@dataclass(frozen=True)
class Token:
    """What one token cost, in bits, and what each predictor expected.

    Attributes:
        text: its bytes.
        bits: what it cost in the archive.
        model_bits: what it would cost by the language model alone.
        end_bits: what of `bits` went to decisions whether a token ends.
        context_bits: what its bytes cost without the language model, by contexts and matches.
        contributions: by predictor, how far it moved the odds towards what came, in bits; negative if away.
        guesses: the language model's best, the likeliest first.
        match: the text that the longest repeat found in this text would go on with, if there is one; of repeats
            found in the model's dictionary nothing is shown, as the text there may be private.
        match_length: the bytes that the repeat agrees on.
    """

    text: bytes
    bits: float
    model_bits: float
    end_bits: float
    context_bits: float
    contributions: dict[str, float]
    guesses: tuple[Guess, ...]
    match: bytes
    match_length: int


@dataclass(frozen=True)
class Passage:
    """A costly passage: its tokens are those from number `first` on, before `end`."""

    first: int
    end: int
    text: bytes
    bits: float


@dataclass(frozen=True)
class Inspection:
    """The tokens of a text in their order, the lanes it was cut into, and xz's size for it."""

    tokens: tuple[Token, ...]
    lane_count: int
    xz_bytes: int

    @property
    def size(self) -> int:
        """Return the bytes of the text."""
        return sum(len(token.text) for token in self.tokens)

    def total(self, kind: str) -> float:
        """Return the sum of an attribute of all tokens, one of those that count bits."""
        return float(sum(getattr(token, kind) for token in self.tokens))

    def costliest(self, count: int) -> list[Passage]:
        """Return the costliest passages of some dozen bytes that do not overlap, the costliest first."""
        starts = np.cumsum([0, *(len(token.text) for token in self.tokens)])
        sums = np.cumsum([0, *(token.bits for token in self.tokens)])
        ends = np.searchsorted(starts, starts[:-1] + PASSAGE_BYTES).clip(max=len(self.tokens))
        found: list[Passage] = []
        for first in np.argsort(sums[:-1] - sums[ends], kind="stable").tolist():
            end = int(ends[first])
            if all(end <= other.first or other.end <= first for other in found):
                text = b"".join(token.text for token in self.tokens[first:end])
                found.append(Passage(first, end, text, float(sums[end] - sums[first])))
                if len(found) == count:
                    break
        return found


def inspect(token_coder: TokenCoder, plain: ByteCoder, data: bytes, *, progress: Progress | None = None) -> Inspection:
    """Encode `data`, one byte or more, as one frame with the `token_coder`, and return where the bits went.

    `plain` codes it without a language model.
    """
    texts = token_coder.tokenizer.tokens
    ids = token_coder.tokenizer.encode(data)
    count = token_coder.lanes_for(data, ids)
    grid = lanes.cut(ids, count)
    without = iter(_context_bits(plain, data, [len(texts[i]) for i in ids.tolist()]))
    places = [(lane, step) for lane in range(count) for step in range(len(grid)) if grid[step, lane] >= 0]
    context_bits = dict(zip(places, without, strict=True))
    found: dict[tuple[int, int], Token] = {}
    for place, token in _encoded(token_coder, grid, context_bits):
        found[place] = token
        if progress:
            progress(len(token.text))
    xz = len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    return Inspection(tuple(found[place] for place in places), count, xz)


def _encoded(
    token_coder: TokenCoder, grid: np.ndarray, context_bits: dict[tuple[int, int], float]
) -> Iterator[tuple[tuple[int, int], Token]]:
    """Encode a grid of tokens one by one; yield what each of them cost, in the order of coding."""
    count, texts = grid.shape[1], token_coder.tokenizer.tokens
    frame = token_coder.begin_frame(token_coder.lane_bytes(grid), traced=token_coder.tree.height)
    session, state = token_coder.session(count), range_coder.new_encoder()
    out = np.empty(2 * token_coder.tree.height * (grid.size + 1), np.uint8)
    probabilities = TokenProbabilities(token_coder)
    segment = max(1, SEGMENT_ROWS // count)
    for at in range(0, len(grid), segment):
        prediction = session.run(lanes.inputs_of(grid, token_coder.bos, at, segment))
        rows = probabilities.of(prediction)
        for t in range(len(rows)):
            now = steps_of(prediction, slice(t, t + 1))
            for lane, token in enumerate(grid[at + t].tolist()):
                if token < 0:
                    continue
                match, length = _match(frame, lane)
                alone = np.full((1, count), -1, np.int32)
                alone[0, lane] = token
                before = range_coder.bits_written(state)
                frame.encode(alone, now, state, out)
                bits = range_coder.bits_written(state) - before
                model_bits, end_bits, contributions = _read_trace(frame)
                guesses = _best(rows[t, lane], texts)
                place = lane, at + t
                others = model_bits, end_bits, context_bits[place], contributions, guesses
                yield place, Token(texts[token], bits, *others, match, length)


def _context_bits(plain: ByteCoder, data: bytes, sizes: list[int]) -> list[float]:
    """Return what each piece of `data` costs without a language model; `sizes` are their bytes."""
    frame = plain.begin_frame(len(data))
    state, out = range_coder.new_encoder(), np.empty(2 * plain.tree.height * (len(data) + 1), np.uint8)
    found, at, before = [], 0, range_coder.bits_written(state)
    for size in sizes:
        piece = np.frombuffer(data[at : at + size], np.uint8).copy()
        token_kernels.encode_bytes(piece, plain.tree, frame, state, out)
        now = range_coder.bits_written(state)
        found.append(now - before)
        at, before = at + size, now
    return found


def _read_trace(frame: FrameCoder) -> tuple[float, float, dict[str, float]]:
    """Return `model_bits`, `end_bits` and `contributions` of the token that was coded last, and empty the trace."""
    core = frame.state.mixer.core[0]
    traced = frame.state.mixer.trace[: core["traced"]]
    core["traced"] = 0
    contributions = np.where(traced["bit"], 1, -1) @ traced["contributions"] / STRETCHED_BIT
    end_bits = _bits(traced["p"], traced["bit"])[traced["ending"] == 1]
    return (
        float(_bits(traced["model"], traced["bit"]).sum()),
        float(end_bits.sum()),
        dict(zip(PREDICTORS, contributions, strict=True)),
    )


def _bits(p: np.ndarray, bit: np.ndarray) -> Floats:
    """Return what bits cost whose probabilities of being 1 are `p`, in 2^-16."""
    found: Floats = 16 - np.log2(np.where(bit, p, (1 << 16) - p))
    return found


def _best(row: Floats, texts: list[bytes]) -> tuple[Guess, ...]:
    """Return the likeliest tokens."""
    best = np.argpartition(row, -GUESSES)[-GUESSES:]
    best = best[np.argsort(-row[best])]
    return tuple(Guess(texts[i], float(row[i])) for i in best.tolist())


def _match(frame: FrameCoder, lane: int) -> tuple[bytes, int]:
    """Return what the longest repeat known to a lane goes on with, and its length in bytes; b"" and 0 for none.

    The text of the model's dictionary, the last lane, is not shown.
    """
    record, lanes_ = frame.state.buffer.lanes[lane], frame.state.buffer.lanes
    for m in range(MATCHES):
        if record["expected"][m] >= 0 and record["length"][m] > 0:
            start, owner = int(record["pointer"][m]), int(record["owner"][m])
            shown = MATCH_SHOWN if owner < len(lanes_) - 1 else 0
            coded = frame.state.buffer.text[start : min(start + shown, int(lanes_[owner]["at"]))]
            return coded.astype(np.uint8).tobytes(), int(record["length"][m])
    return b"", 0
