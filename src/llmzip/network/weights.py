"""The weights of an exact network: integers, scales and vectors, checked when they are loaded.

The file format is :mod:`llmzip.model.file`'s; this module says what a network consists of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from llmzip.errors import ModelError

WEIGHT_PEAK = 63  # 7 bits: int16 sums of two products with 8-bit activations cannot saturate
MAX_WIDTH = 2048  # the norm's sum of squares stays in int32
MAX_HIDDEN = 65536  # |acc| < 2^31
SCALE_RANGE = (2.0**-40, 2.0**20)
VECTOR_BOUND = 1024.0


@dataclass(frozen=True)
class Matrix:
    """A weight matrix: ``w[n, k] = q[n, k] * scale[n]``, int8 within +-63 and float32."""

    q: np.ndarray
    scale: np.ndarray

    def check(self, name: str, rows: int, columns: int, *, peak: int = WEIGHT_PEAK) -> None:
        """Raise ModelError unless the shapes and ranges are those the exact profile relies on."""
        if self.q.shape != (rows, columns) or self.scale.shape != (rows,):
            raise ModelError(f"the model's matrix {name} has the wrong shape {self.q.shape}")
        if self.q.dtype != np.int8 or self.scale.dtype != np.float32:
            raise ModelError(f"the model's matrix {name} has the wrong type")
        low, high = SCALE_RANGE
        if not (np.isfinite(self.scale).all() and (self.scale >= low).all() and (self.scale <= high).all()):
            raise ModelError(f"the model's matrix {name} has scales out of range")
        if self.q.size and (self.q.min() < -peak or self.q.max() > peak):
            raise ModelError(f"the model's matrix {name} has weights beyond {peak}")


def check_vector(vector: np.ndarray, at: str, shape: tuple[int, ...]) -> None:
    """Raise ModelError unless a float32 vector has its shape and is bounded."""
    if vector.shape != shape or vector.dtype != np.float32:
        raise ModelError(f"a vector of the model's layer {at} has the wrong shape or type")
    if not (np.abs(vector) <= VECTOR_BOUND).all():
        raise ModelError(f"a vector of the model's layer {at} is not finite and bounded")


@dataclass(frozen=True)
class LayerWeights:
    """The weights of one layer of the gated recurrence; `d` is the width."""

    arch: ClassVar[str] = "gated"

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

    def check(self, at: str, width: int, hidden: int) -> None:
        """Raise ModelError for anything the exact profile does not allow; `at` names the layer."""
        self.token_in.check(f"layers.{at}.token.in", 3 * width, width)
        self.token_out.check(f"layers.{at}.token.out", width, width)
        self.channel_up.check(f"layers.{at}.channel.up", hidden, width)
        self.channel_down.check(f"layers.{at}.channel.down", width, hidden)
        for vector in (self.token_shift, self.forget_bias, self.channel_shift):
            check_vector(vector, at, (width,))


@dataclass(frozen=True, kw_only=True)
class OtherLayer:
    """The weights of one layer of another architecture: the same channel mixer, and a token mixer that a subclass adds.

    `token_shapes` gives the shapes of its fields for a width; a field ``token_in`` is ``token.in`` in a model file.
    """

    arch: ClassVar[str]
    token_shapes: ClassVar[Callable[[int], dict[str, tuple[int, ...]]]]

    channel_shift: np.ndarray  # float32 [d]
    channel_up: Matrix  # [hidden, d]
    channel_down: Matrix  # [d, hidden]

    @classmethod
    def shapes(cls, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all fields."""
        channel = {"channel_shift": (width,), "channel_up": (hidden, width), "channel_down": (width, hidden)}
        return cls.token_shapes(width) | channel

    def parts(self) -> dict[str, Matrix | np.ndarray]:
        """Return all fields by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def matrices(self) -> tuple[Matrix, ...]:
        """Return the matrices that are multiplied with."""
        return tuple(part for part in self.parts().values() if isinstance(part, Matrix))

    def check(self, at: str, width: int, hidden: int) -> None:
        """Raise ModelError for anything the exact profile does not allow; `at` names the layer."""
        for name, shape in self.shapes(width, hidden).items():
            part: Any = getattr(self, name)
            if isinstance(part, Matrix):
                part.check(f"layers.{at}.{name.replace('_', '.', 1)}", *shape)
            else:
                check_vector(part, at, shape)


@dataclass(frozen=True)
class Weights:
    """The weights of a whole network; raises ModelError for anything the exact profile does not allow."""

    embedding: Matrix  # [vocab + 1, d]; the last row is BOS
    layers: tuple[LayerWeights | OtherLayer, ...]  # all of one architecture
    head_cluster: Matrix  # [clusters, d]; scales include log2(e) * 4096
    head_token: Matrix  # [vocab, d]; the same scales
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
        if len({layer.arch for layer in self.layers}) > 1:
            raise ModelError("the model mixes architectures")
        for i, layer in enumerate(self.layers):
            layer.check(str(i), width, hidden)

    @property
    def arch(self) -> str:
        """Return the name of the architecture."""
        return self.layers[0].arch

    @property
    def bos(self) -> int:
        """Return the input id that starts a text."""
        return self.vocab
