"""The mixer's initial state, trained: what it has learned from text when the next text begins.

The mixer codes one text after the other, each with empty slots but with the weights and probabilities that it had
after the text before; the initial state is the mean of its states after each of the later texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmzip.coding.byte_coder import ByteCoder
from llmzip.coding.progress import Progress
from llmzip.coding.token_coder import TokenCoder
from llmzip.mixing.initial_state import InitialState
from llmzip.mixing.state import Mixer, to_initial_state
from llmzip.model.file import Model
from llmzip.training.corpus import cut_pieces

SETTLING = 0.3  # share of the texts after which the mean begins
# With less text the present initial state is as good (docs/experiments/2026-11-24-initial-state.md).
LEAST_BYTES = 1 << 15
PIECE_BYTES = 48 << 10  # at most; files of this size gain most from a good initial state


def train_initial_state(
    texts: Sequence[bytes], model: Model | None = None, *, threads: int = 1, progress: Progress | None = None
) -> InitialState:
    """Return an initial state for frames coded with `model`, or without one if it is None.

    Args:
        texts: as varied as what will be compressed, in random order, and not what the model was trained on.
        model: a Model.
        threads: that run its network.
        progress: called with the number of bytes done since the last call.
    """
    coder = ByteCoder(InitialState.untrained(model=False)) if model is None else TokenCoder(model, threads=threads)
    sums: dict[str, np.ndarray] = {}
    count = 0
    for i, text in enumerate(texts):
        coder.initial_state = to_initial_state(_mixer_after(text, coder, progress))
        if i >= SETTLING * len(texts) or i == len(texts) - 1:
            count += 1
            for name, value in vars(coder.initial_state).items():
                sums[name] = sums.get(name, np.zeros(value.shape)) + value
    return InitialState(
        **{
            name: np.rint(total / count).astype(getattr(coder.initial_state, name).dtype)
            for name, total in sums.items()
        }
    )


def _mixer_after(text: bytes, coder: ByteCoder | TokenCoder, progress: Progress | None) -> Mixer:
    """Return the mixer as it is once it has coded `text`."""
    limit = 2 * len(text) + 64  # no text is too hard to learn from
    if isinstance(coder, ByteCoder):
        state = coder.begin_frame(len(text))
        coder.encode_frame(text, state, limit, progress)
        return state.mixer
    grid = coder.grid(text)
    frame = coder.begin_frame(coder.lane_bytes(grid))
    coder.encode_frame(grid, frame, limit, progress)
    return frame.state.mixer


def retrained(model: Model, texts: Sequence[bytes], seed: int, *, threads: int = 1) -> InitialState:
    """Return the initial state of `model`, retrained on text that the network was not trained on.

    It stays as it is if there is too little text. The text is cut into pieces, whose order depends on `seed`.
    """
    if sum(map(len, texts)) < LEAST_BYTES:
        return model.initial_state
    rng = np.random.default_rng(seed)
    pieces = [piece for text in texts for piece in cut_pieces([text], PIECE_BYTES, rng)]
    return train_initial_state([pieces[i] for i in rng.permutation(len(pieces))], model, threads=threads)
