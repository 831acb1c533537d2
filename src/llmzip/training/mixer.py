"""Start values for the mixer: what it has learned from text when it comes to the next one.

The mixer codes one text after the other, each with empty slots but with the weights and probabilities that the
ones before have left; the start values are the mean of what it has come to after each of the later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from llmzip.coding.byte_coder import ByteCoder
from llmzip.coding.token_coder import Engine, Walker
from llmzip.mixing.initial_state import Start
from llmzip.mixing.state import Mixer, learned
from llmzip.mixing.text_buffer import History
from llmzip.model.file import Model
from llmzip.training.corpus import cut_pieces

SETTLING = 0.3  # share of the texts after which the mean begins
LEAST_BYTES = 1 << 15  # less text tells less than the start values there are (docs/experiments.md)
PIECE_BYTES = 48 << 10  # at most; files of this size gain most from good start values


class _ListeningEngine(Engine):
    """Remember the mixer of the last frame."""

    mixer: Mixer

    def begin_walk(self, lane_bytes: list[int], *, traced: int = 0) -> Walker:
        walker = super().begin_walk(lane_bytes, traced=traced)
        self.mixer = walker.mixer
        return walker


class _ListeningByteCoder(ByteCoder):
    """Remember the mixer of the last frame."""

    mixer: Mixer

    def begin_walk(self, size: int) -> tuple[History, Mixer]:
        history, self.mixer = super().begin_walk(size)
        return history, self.mixer


def train_start(texts: Sequence[bytes], model=None, *, progress: Callable[[int], None] | None = None) -> Start:
    """Return start values for frames coded with `model`, or without one if it is None.

    Args:
        texts: as varied as what will be compressed, in random order, and not what the model was trained on.
        model: a Model.
        progress: told the bytes done since the last call.
    """
    coder = _ListeningByteCoder(Start.untrained(model=False)) if model is None else _ListeningEngine(model)
    sums: dict[str, np.ndarray] = {}
    count = 0
    for i, text in enumerate(texts):
        coder.encode(text, capacity=2 * len(text) + 64, progress=progress)
        coder.start = learned(coder.mixer)
        if i >= SETTLING * len(texts) or i == len(texts) - 1:
            count += 1
            for name, value in vars(coder.start).items():
                sums[name] = sums.get(name, np.zeros(value.shape)) + value
    return Start(
        **{name: np.rint(total / count).astype(getattr(coder.start, name).dtype) for name, total in sums.items()}
    )


def retrained(model: Model, texts: Sequence[bytes], seed: int) -> Start:
    """Return the start values that those of `model` become on text that it was not trained on.

    They stay what they are if there is too little text. The text is cut into pieces, whose order depends on `seed`.
    """
    if sum(map(len, texts)) < LEAST_BYTES:
        return model.start
    rng = np.random.default_rng(seed)
    pieces = [piece for text in texts for piece in cut_pieces([text], PIECE_BYTES, rng)]
    return train_start([pieces[i] for i in rng.permutation(len(pieces))], model)
