"""Start values for the mixer: what it has learned from text when it comes to the next one.

The mixer codes one text after the other, each with empty slots but with the weights and probabilities that the
ones before have left; the start values are the mean of what it has come to after each of the later ones.
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
PIECE_BYTES = 48 << 10  # at most; files of this size gain most from good start values


def train_initial_state(
    texts: Sequence[bytes], model: Model | None = None, *, progress: Progress | None = None
) -> InitialState:
    """Return start values for frames coded with `model`, or without one if it is None.

    Args:
        texts: as varied as what will be compressed, in random order, and not what the model was trained on.
        model: a Model.
        progress: told the bytes done since the last call.
    """
    coder = ByteCoder(InitialState.untrained(model=False)) if model is None else TokenCoder(model)
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


def retrained(model: Model, texts: Sequence[bytes], seed: int) -> InitialState:
    """Return the start values that those of `model` become on text that it was not trained on.

    They stay what they are if there is too little text. The text is cut into pieces, whose order depends on `seed`.
    """
    if sum(map(len, texts)) < LEAST_BYTES:
        return model.initial_state
    rng = np.random.default_rng(seed)
    pieces = [piece for text in texts for piece in cut_pieces([text], PIECE_BYTES, rng)]
    return train_initial_state([pieces[i] for i in rng.permutation(len(pieces))], model)
