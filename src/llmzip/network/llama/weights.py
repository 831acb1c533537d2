"""The weights of a Llama-type network: integers, scales and vectors, checked when they are loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from llmzip.errors import ModelError
from llmzip.network.weights import Matrix, check_vector

WEIGHT_PEAK = 127
SINKS = 16  # tokens at the beginning of a lane that stay in the window for ever
MOST_COLUMNS = 16384  # of a matrix: products of 8 by 8 bits stay within int32
MOST_HEAD_WIDTH = 1024  # products of 12 by 8 bits stay within int32
MOST_SEGMENT = 1008  # the sum of a row's weights, 2^20 at most each, stays within int32
MOST_VOCABULARY = 1 << 18  # the sum of all frequencies stays below 2^44


@dataclass(frozen=True)
class Shape:
    """The sizes of a network.

    Attributes:
        width: channels of the residual stream.
        heads, kv_heads, head_width: of the attention; `heads` is a multiple of `kv_heads`.
        hidden: channels of the MLP.
        segment: tokens after which the window of attention moves on: it holds the SINKS and one or two segments.
    """

    width: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    segment: int

    def __post_init__(self) -> None:
        sizes = [getattr(self, each.name) for each in fields(self)]
        if min(sizes) < 1 or max(self.width, self.hidden, self.heads * self.head_width) > MOST_COLUMNS:
            raise ModelError(f"the model's sizes are not supported: {self}")
        if self.heads % self.kv_heads or self.head_width % 16 or self.head_width > MOST_HEAD_WIDTH:
            raise ModelError(f"the model's attention is not supported: {self}")
        if self.segment % 8 or self.segment > MOST_SEGMENT:
            raise ModelError(f"the model's attention is not supported: {self}")
        if self.width % 2 or self.hidden % 2:
            raise ModelError(f"the model's width {self.width} or hidden width {self.hidden} is not supported")

    @property
    def window(self) -> int:
        """Return the most tokens that a token attends to."""
        return SINKS + 2 * self.segment

    @property
    def attention_rows(self) -> int:
        """Return the rows of the matrix of queries, keys and values."""
        return (self.heads + 2 * self.kv_heads) * self.head_width


def layer_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a layer's fields."""
    mixed = shape.heads * shape.head_width
    return {
        "attention_in": (shape.attention_rows, shape.width),
        "attention_bias": (shape.attention_rows,),
        "attention_out": (shape.width, mixed),
        "mlp_in": (2 * shape.hidden, shape.width),
        "mlp_out": (shape.width, shape.hidden),
    }


@dataclass(frozen=True)
class LlamaLayer:
    """The weights of one layer; a field ``mlp_in`` is ``mlp.in`` in a model file."""

    attention_in: Matrix  # [(heads + 2 kv_heads) head_width, d]: queries, keys, values
    attention_bias: np.ndarray  # float32, of these rows
    attention_out: Matrix  # [d, heads head_width]
    mlp_in: Matrix  # [2 hidden, d]: gate, up
    mlp_out: Matrix  # [d, hidden]

    def check(self, at: str, shape: Shape) -> None:
        """Raise ModelError for anything the exact profile does not allow; `at` names the layer."""
        for name, size in layer_shapes(shape).items():
            part = getattr(self, name)
            if isinstance(part, Matrix):
                part.check(f"layers.{at}.{name.replace('_', '.', 1)}", *size, peak=WEIGHT_PEAK)
            else:
                check_vector(part, at, size)


@dataclass(frozen=True)
class LlamaWeights:
    """The weights of a whole network; raises ModelError for anything the exact profile does not allow.

    Attributes:
        shape: the sizes.
        embedding: [V + 1, d]; the last row starts a text.
        layers: the layers.
        norm: float32 [d], the gain of the last norm, of channels that are not turned.
        head: [V, d]; the scales include log2(e). None where it is the embedding's first V rows, times log2(e).
        epsilon: added to the mean square in norms.
        cosines, sines: float32 [window, head_width / 2], the rotations of the window's positions.
        absent: int32, tokens that the network knows nothing of: they have the lowest frequency.
        cluster_starts: int32 [C], first tokens of the parts in which frequencies are summed.
    """

    arch: ClassVar[str] = "llama"

    shape: Shape
    embedding: Matrix
    layers: tuple[LlamaLayer, ...]
    norm: np.ndarray
    head: Matrix | None
    epsilon: float
    cosines: np.ndarray
    sines: np.ndarray
    absent: np.ndarray
    cluster_starts: np.ndarray

    def __post_init__(self) -> None:
        shape, vocab = self.shape, self.vocab
        if not self.layers:
            raise ModelError("the model has no layers")
        if not 2 <= vocab <= MOST_VOCABULARY:
            raise ModelError(f"a vocabulary of {vocab} tokens is not supported")
        self.embedding.check("embedding", vocab + 1, shape.width, peak=WEIGHT_PEAK)
        if self.head is not None:
            self.head.check("head", vocab, shape.width, peak=WEIGHT_PEAK)
        for i, layer in enumerate(self.layers):
            layer.check(str(i), shape)
        check_vector(self.norm, "norm", (shape.width,))
        for table in (self.cosines, self.sines):
            check_vector(table, "rotations", (shape.window, shape.head_width // 2))
        if not 0.0 <= self.epsilon <= 1.0:
            raise ModelError(f"the model's epsilon {self.epsilon} is not supported")
        if self.absent.dtype != np.int32 or self.absent.ndim != 1 or ((self.absent < 0) | (self.absent >= vocab)).any():
            raise ModelError("the model's list of absent tokens is damaged")

    @property
    def vocab(self) -> int:
        """Return the number of tokens."""
        return len(self.embedding.q) - 1

    @property
    def size(self) -> int:
        """Return the number of weights."""
        return (
            sum(math.prod(shape) for shape in layer_shapes(self.shape).values()) * len(self.layers)
            + self.embedding.q.size
        )

    def head_matrix(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the integers and scales of the output layer."""
        if self.head is None:
            return self.embedding.q[:-1], self.embedding.scale[:-1]
        return self.head.q, self.head.scale

    @property
    def bos(self) -> int:
        """Return the input id that starts a text."""
        return self.vocab

    @property
    def width(self) -> int:
        """Return the number of channels."""
        return self.shape.width
