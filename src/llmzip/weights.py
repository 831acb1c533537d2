"""The weights of an exact network: integers, scales and vectors, checked when they are loaded.

The file format is :mod:`llmzip.modelfile`'s; this module says what a network consists of.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llmzip.errors import ModelError

WEIGHT_PEAK = 63  # 7 bits: int16 sums of two products with 8-bit activations cannot saturate
MAX_WIDTH = 2048  # the norm's sum of squares stays in int32
MAX_HIDDEN = 65536  # |acc| < 2^31
SCALE_RANGE = (2.0**-40, 2.0**20)
VECTOR_BOUND = 1024.0


@dataclass(frozen=True)
class Matrix:
    """Hold a weight matrix: ``w[n, k] = q[n, k] * scale[n]``, int8 within +-63 and float32."""

    q: np.ndarray
    scale: np.ndarray

    def check(self, name: str, rows: int, columns: int) -> None:
        """Raise ModelError unless the shapes and ranges are those the exact profile relies on."""
        if self.q.shape != (rows, columns) or self.scale.shape != (rows,):
            raise ModelError(f"the model's matrix {name} has the wrong shape {self.q.shape}")
        if self.q.dtype != np.int8 or self.scale.dtype != np.float32:
            raise ModelError(f"the model's matrix {name} has the wrong type")
        low, high = SCALE_RANGE
        if not (np.isfinite(self.scale).all() and (self.scale >= low).all() and (self.scale <= high).all()):
            raise ModelError(f"the model's matrix {name} has scales out of range")
        if (np.abs(self.q.astype(np.int16)) > WEIGHT_PEAK).any():
            raise ModelError(f"the model's matrix {name} has weights beyond 7 bits")


@dataclass(frozen=True)
class LayerWeights:
    """Hold one layer; `d` is the width."""

    token_shift: np.ndarray  # float32 [d]
    token_in: Matrix  # [3 d, d]: candidate, forget gate, output gate
    forget_bias: np.ndarray  # float32 [d]
    token_out: Matrix  # [d, d]
    channel_shift: np.ndarray  # float32 [d]
    channel_up: Matrix  # [hidden, d]
    channel_down: Matrix  # [d, hidden]

    def matrices(self) -> tuple[Matrix, ...]:
        """Return the layer's matrix products, in order."""
        return self.token_in, self.token_out, self.channel_up, self.channel_down


@dataclass(frozen=True)
class Weights:
    """Hold a whole network; raises ModelError for anything the exact profile does not allow."""

    embedding: Matrix  # [vocab + 1, d]; the last row is BEGIN
    layers: tuple[LayerWeights, ...]
    head_cluster: Matrix  # [clusters, d]; scales include log2(e) * 4096
    head_token: Matrix  # [vocab, d]; likewise
    cluster_starts: np.ndarray  # int32 [clusters]
    width: int = field(init=False)
    hidden: int = field(init=False)
    vocab: int = field(init=False)

    def __post_init__(self) -> None:
        vocab, width = self.head_token.q.shape
        if not self.layers:
            raise ModelError("the model has no layers")
        hidden = self.layers[0].channel_up.q.shape[0]
        for name, value in (("vocab", vocab), ("width", width), ("hidden", hidden)):
            object.__setattr__(self, name, value)
        if not 0 < width <= MAX_WIDTH or width % 2 or not 0 < hidden <= MAX_HIDDEN or hidden % 2:
            raise ModelError(f"the model's width {width} or hidden width {hidden} is not supported")
        self.embedding.check("embedding", vocab + 1, width)
        self.head_cluster.check("head.cluster", len(self.cluster_starts), width)
        self.head_token.check("head.token", vocab, width)
        for i, layer in enumerate(self.layers):
            layer.token_in.check(f"layers.{i}.token.in", 3 * width, width)
            layer.token_out.check(f"layers.{i}.token.out", width, width)
            layer.channel_up.check(f"layers.{i}.channel.up", hidden, width)
            layer.channel_down.check(f"layers.{i}.channel.down", width, hidden)
            for vector in (layer.token_shift, layer.forget_bias, layer.channel_shift):
                if vector.shape != (width,) or vector.dtype != np.float32:
                    raise ModelError(f"a vector of the model's layer {i} has the wrong shape or type")
                if not (np.abs(vector) <= VECTOR_BOUND).all():
                    raise ModelError(f"a vector of the model's layer {i} is not finite and bounded")

    @property
    def begin(self) -> int:
        """Return the input id that starts a text."""
        return self.vocab
