"""Probabilities of whole tokens by the language model alone, in floating point: for inspection, never for coding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmzip.coding.lanes import cut, inputs_of
from llmzip.coding.token_coder import TokenCoder
from llmzip.exp2 import LOGIT_BITS
from llmzip.network.head import Head, Prediction
from llmzip.network.heads import AnyPrediction
from llmzip.network.llama.flat_head import FlatPrediction
from llmzip.network.matmul import BINDERS

Floats = npt.NDArray[np.float64]

ROWS = 128  # of probabilities at once: each has an entry for every token


class TokenProbabilities:
    """The conversion of the exact network's predictions into probabilities of all tokens."""

    def __init__(self, token_coder: TokenCoder):
        self._head: Any = token_coder.head
        self._starts = token_coder.tree.starts[:-1]
        self._cluster_of = token_coder.tree.cluster_of
        if isinstance(self._head, Head):
            # One thread, unlike numpy's own product: beside other work, threads that wait for each other take a second.
            self._product = BINDERS["int16"](self._head.weights)

    def of(self, prediction: AnyPrediction, *, temperature: float = 1.0) -> Floats:
        """Return float64 ``[T, B, V]``; a `temperature` below 1 sharpens the distribution, above 1 flattens it."""
        if isinstance(prediction, FlatPrediction):
            logits = np.log2(prediction.frequencies[..., : len(self._cluster_of)]) / temperature
            tokens = np.exp2(logits - logits.max(-1, keepdims=True))
            return np.asarray(tokens / tokens.sum(-1, keepdims=True))
        return self._of_two_levels(prediction, temperature)

    def _of_two_levels(self, prediction: Prediction, temperature: float) -> Floats:
        head = self._head
        scale = prediction.scale[..., None].astype(np.float64) / ((1 << LOGIT_BITS) * temperature)
        clusters = prediction.cluster_acc * scale * head.cluster_scales
        hidden = prediction.hidden.reshape(-1, prediction.hidden.shape[-1])
        acc = np.empty((len(hidden), len(self._cluster_of)), np.int32)
        self._product(np.ascontiguousarray(hidden), acc)
        tokens = acc.reshape(*prediction.scale.shape, -1) * scale * head.token_scales
        clusters = np.exp2(clusters - clusters.max(-1, keepdims=True))
        peaks = np.maximum.reduceat(tokens, self._starts, axis=-1)
        tokens = np.exp2(tokens - peaks[..., self._cluster_of])
        share = clusters / clusters.sum(-1, keepdims=True) / np.add.reduceat(tokens, self._starts, axis=-1)
        found: Floats = tokens * share[..., self._cluster_of]
        return found


def exact_bits(token_coder: TokenCoder, data: bytes, lanes: int = 16) -> float:
    """Return what the exact network alone would pay for `data`, without the mixer."""
    grid = cut(token_coder.tokenizer.encode(data), lanes)
    return bits_of(token_coder, grid, grid >= 0)


def bits_of(token_coder: TokenCoder, grid: np.ndarray, counted: np.ndarray) -> float:
    """Return what the exact network alone would pay for those tokens of a grid int32 ``[T, B]`` that are `counted`."""
    lanes = grid.shape[1]
    session, inputs = token_coder.session(lanes), inputs_of(grid, token_coder.bos)
    probabilities, bits, steps = TokenProbabilities(token_coder), 0.0, max(1, ROWS // lanes)
    for at in range(0, len(grid), steps):
        rows = probabilities.of(session.run(np.ascontiguousarray(inputs[at : at + steps])))
        chosen = counted[at : at + steps]
        bits -= float(np.log2(rows[chosen, grid[at : at + steps][chosen]]).sum())
    return bits
