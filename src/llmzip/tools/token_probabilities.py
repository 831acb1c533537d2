"""Probabilities of whole tokens by the language model alone, in floating point: for inspection, never for coding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmzip.coding.token_coder import TokenCoder
from llmzip.exp2 import LOGIT_BITS
from llmzip.network.head import Prediction
from llmzip.network.matmul import bind_int16

Floats = npt.NDArray[np.float64]


class TokenProbabilities:
    """The conversion of the exact network's predictions into probabilities of all tokens."""

    def __init__(self, token_coder: TokenCoder):
        self._head, self._starts = token_coder.head, token_coder.tree.starts[:-1]
        self._cluster_of = token_coder.tree.cluster_of
        # One thread, unlike numpy's own product: beside other work, threads that wait for each other take a second.
        self._product = bind_int16(token_coder.head.weights)

    def of(self, prediction: Prediction, *, temperature: float = 1.0) -> Floats:
        """Return float64 ``[T, B, V]``; a `temperature` below 1 sharpens the distribution, above 1 flattens it."""
        scale = prediction.scale[..., None].astype(np.float64) / ((1 << LOGIT_BITS) * temperature)
        clusters = prediction.cluster_acc * scale * self._head.cluster_scales
        hidden = prediction.hidden.reshape(-1, prediction.hidden.shape[-1])
        acc = np.empty((len(hidden), len(self._cluster_of)), np.int32)
        self._product(np.ascontiguousarray(hidden), acc)
        tokens = acc.reshape(*prediction.scale.shape, -1) * scale * self._head.token_scales
        clusters = np.exp2(clusters - clusters.max(-1, keepdims=True))
        peaks = np.maximum.reduceat(tokens, self._starts, axis=-1)
        tokens = np.exp2(tokens - peaks[..., self._cluster_of])
        share = clusters / clusters.sum(-1, keepdims=True) / np.add.reduceat(tokens, self._starts, axis=-1)
        found: Floats = tokens * share[..., self._cluster_of]
        return found
