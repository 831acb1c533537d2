"""From a published model's floats to the integers of an exact network, the same on every machine.

Everything is element-wise in float64: no sum, no product of matrices, nothing whose last bit depends on a library.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmzip.errors import ModelError
from llmzip.network.llama.weights import WEIGHT_PEAK, LlamaLayer, LlamaWeights, Shape
from llmzip.network.weights import Matrix
from llmzip.pretrained.rotations import rotations
from llmzip.pretrained.source import Floats, Source

SEGMENT = 512  # docs/experiments/2026-11-27-pretrained.md
CLUSTERS = 256
SMALLEST_SCALE = 2.0**-40


def quantised(weight: Floats) -> Matrix:
    """Return a matrix in integers within +-127, each row with its scale."""
    wide = weight.astype(np.float64)
    scale = np.maximum(np.abs(wide).max(axis=1) / WEIGHT_PEAK, SMALLEST_SCALE).astype(np.float32)
    q = np.rint(wide / scale.astype(np.float64)[:, None]).clip(-WEIGHT_PEAK, WEIGHT_PEAK)
    return Matrix(np.ascontiguousarray(q.astype(np.int8)), scale)


def vocabulary(source: Source) -> tuple[list[bytes], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return the tokens in byte order, their rows in the source (-1 for absent bytes) and their ranks."""
    known: dict[bytes, int] = {}
    for row, token in enumerate(source.tokens):
        if token:
            known.setdefault(token, row)
    for byte in range(256):
        known.setdefault(bytes([byte]), -1)
    tokens = sorted(known)
    rows = np.array([known[token] for token in tokens], np.int64)
    ranks = np.array([source.ranks[row] if row >= 0 else 0 for row in rows], np.int32)
    return tokens, rows, ranks


def convert(source: Source, rows: npt.NDArray[np.int64], cluster_starts: npt.NDArray[np.int32]) -> LlamaWeights:
    """Return the exact weights of a published model; `rows` are those of its embedding that the tokens have."""
    shape = Shape(source.width, source.heads, source.kv_heads, source.head_width, source.hidden, SEGMENT)
    try:
        layers = tuple(_layer(source, f"model.layers.{i}.", shape) for i in range(source.layers))
        embedding = source.tensor("model.embed_tokens.weight")
        norm = source.tensor("model.norm.weight")
    except KeyError as error:
        raise ModelError(f"lacks the tensor {error.args[0]}") from error
    try:
        head = source.tensor("lm_head.weight")
    except KeyError:
        head = None
    known = rows >= 0
    table = np.zeros((len(rows) + 1, source.width), np.float32)
    table[:-1][known] = embedding[rows[known]]
    # What the network knows nothing of looks to it like the character that stands for such things.
    table[:-1][~known] = embedding[_replacement(source)]
    table[-1] = embedding[source.start]
    output = None
    if head is not None:
        wide = np.zeros((len(rows), source.width), np.float32)
        wide[known] = head[rows[known]]
        output = quantised(wide)
    cosines, sines = rotations(source.rotary_base, source.head_width, shape.window)
    return LlamaWeights(
        shape,
        quantised(table),
        layers,
        norm,
        output,
        source.epsilon,
        cosines,
        sines,
        np.flatnonzero(~known).astype(np.int32),
        cluster_starts,
    )


def _replacement(source: Source) -> int:
    """Return the row of the last byte of U+FFFD, the first token where there is none."""
    return next((row for row, token in enumerate(source.tokens) if token == b"\xbd"), 0)


def _layer(source: Source, at: str, shape: Shape) -> LlamaLayer:
    def joined(*names: str) -> Matrix:
        return quantised(np.concatenate([source.tensor(f"{at}{name}.weight") for name in names]))

    return LlamaLayer(
        attention_norm=source.tensor(at + "input_layernorm.weight"),
        attention_in=joined("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attention_bias=np.zeros(shape.attention_rows, np.float32),
        attention_out=joined("self_attn.o_proj"),
        mlp_norm=source.tensor(at + "post_attention_layernorm.weight"),
        mlp_in=joined("mlp.gate_proj", "mlp.up_proj"),
        mlp_out=joined("mlp.down_proj"),
    )
