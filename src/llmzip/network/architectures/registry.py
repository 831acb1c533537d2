"""Other architectures than the gated recurrence, with the same embedding, channel mixers and head.

Each module holds the token mixer of one, exact: its weights, and what runs between its matrix products, specified
in ``docs/FORMAT.md``. They are for comparison; the gated recurrence is faster and is what the shipped models use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from llmzip.network.architectures import gru, lstm, transformer
from llmzip.network.buffers import Buffers
from llmzip.network.weights import Matrix, OtherLayer

Product = Callable[[Matrix, np.ndarray, np.ndarray], None]  # (matrix, q int16 [M, K], acc int32 [M, N])


class TokenMixer(Protocol):
    """One layer's state of several texts."""

    def run(self, work: Buffers, product: Product, inverse_width: np.float32) -> None:
        """Add what the mixer makes of the rows `work.x` ``[T * B, d]``, in time order, to them."""


LAYERS: dict[str, type[OtherLayer]] = {
    "lstm": lstm.LstmLayer,
    "gru": gru.GruLayer,
    "transformer": transformer.TransformerLayer,
}


def token_mixer(layer: OtherLayer, lanes: int) -> TokenMixer:
    """Return the mixer for a layer, before a text."""
    kinds: dict[str, Callable[..., TokenMixer]] = {
        "lstm": lstm.LstmMixer,
        "gru": gru.GruMixer,
        "transformer": transformer.TransformerMixer,
    }
    return kinds[layer.arch](layer, lanes)
