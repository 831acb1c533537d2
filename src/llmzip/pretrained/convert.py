"""From a published model's floats to the integers of an exact network, the same on every machine.

Everything is element-wise in float64: no sum, no product of matrices, nothing whose last bit depends on a library.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from llmzip.coding.progress import Progress
from llmzip.errors import ModelError
from llmzip.model.registry import MAX_FILE_BYTES
from llmzip.network.llama.turn import turned_at_once
from llmzip.network.llama.weights import WEIGHT_PEAK, LlamaLayer, LlamaWeights, Shape, layer_shapes
from llmzip.network.weights import Matrix
from llmzip.pretrained.rotations import rotations
from llmzip.pretrained.source import Floats, Source

SEGMENT = 512  # docs/experiments/2026-11-27-pretrained.md
CLUSTERS = 256
SMALLEST_SCALE = 2.0**-40


def quantised(weight: npt.NDArray[np.float64]) -> Matrix:
    """Return a matrix in integers within +-127, each row with its scale."""
    scale = np.maximum(np.abs(weight).max(axis=1) / WEIGHT_PEAK, SMALLEST_SCALE).astype(np.float32)
    q = np.rint(weight / scale.astype(np.float64)[:, None]).clip(-WEIGHT_PEAK, WEIGHT_PEAK)
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


def turned(weight: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return a matrix whose columns are turned, for rows of channels that are: a turn there and here is none."""
    rows, columns = weight.shape
    size = turned_at_once(columns)
    now, half = weight.astype(np.float64), columns // size
    while half < columns:
        pairs = now.reshape(rows, columns // (2 * half), 2, half)
        now = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        half *= 2
    return now.reshape(rows, columns) / math.sqrt(size)


def turned_rows(weight: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return a matrix whose output is turned."""
    return np.ascontiguousarray(turned(np.ascontiguousarray(weight.T)).T)


def convert(
    source: Source,
    rows: npt.NDArray[np.int64],
    cluster_starts: npt.NDArray[np.int32],
    progress: Progress | None = None,
) -> LlamaWeights:
    """Return the exact weights of a published model; `rows` are those of its embedding that the tokens have.

    Turns that lie between two matrices, and the gains of the layers' norms, are multiplied into them: the residual
    stream is turned, and so are each head's values. The two that remain are those of the MLPs' hidden rows, which are
    scaled inside the matrices here, and of the last norm.
    """
    shape = Shape(source.width, source.heads, source.kv_heads, source.head_width, source.hidden, SEGMENT)
    each = sum(math.prod(size) for size in layer_shapes(shape).values())
    if source.layers * each + len(rows) * source.width * (1 if source.tied else 2) > MAX_FILE_BYTES:
        raise ModelError(f"its import would be larger than {MAX_FILE_BYTES >> 30} GiB, the most that a model may have")
    known = rows >= 0

    def of_tokens(table: Floats, others: Floats) -> Matrix:
        chosen = np.repeat(others[None].astype(np.float64), len(rows) + 1, axis=0)
        chosen[:-1][known] = table[rows[known]]
        chosen[-1] = table[source.start]
        return quantised(turned(chosen))

    try:
        layers = []
        for i in range(source.layers):
            layers.append(_layer(source, f"model.layers.{i}.", shape))
            if progress:
                progress(1)
        embedding = source.tensor("model.embed_tokens.weight")
        # The last norm's row is turned back and forth without a scale.
        norm = (source.tensor("model.norm.weight") / np.float32(turned_at_once(source.width))).astype(np.float32)
        head = None
        if not source.tied:
            output = source.tensor("lm_head.weight")
            whole = of_tokens(output, np.zeros(source.width, np.float32))
            head = Matrix(whole.q[:-1], whole.scale[:-1])
    except KeyError as error:
        raise ModelError(f"lacks the tensor {error.args[0]}") from error
    except (ValueError, IndexError) as error:
        raise ModelError(f"its tensors have not the shapes that its sizes say: {error}") from error
    cosines, sines = rotations(source.rotary_base, source.head_width, shape.window)
    return LlamaWeights(
        shape,
        # What the network knows nothing of looks to it like the character that stands for such things.
        of_tokens(embedding, embedding[_replacement(source)]),
        tuple(layers),
        norm,
        head,
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
    def weight(name: str) -> npt.NDArray[np.float64]:
        return source.tensor(f"{at}{name}.weight").astype(np.float64)

    def of_heads(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Turn what each head gives: rows ``[kv_heads * head_width, n]``."""
        heads = values.reshape(shape.kv_heads, shape.head_width, -1)
        return np.concatenate([turned_rows(head) for head in heads]).reshape(values.shape)

    q, k, v = (weight(f"self_attn.{part}_proj") for part in "qkv")
    bias = np.zeros((shape.attention_rows, 1))
    if source.biased:
        q_bias, k_bias, v_bias = (source.tensor(f"{at}self_attn.{part}_proj.bias").astype(np.float64) for part in "qkv")
        bias = np.concatenate([q_bias[:, None], k_bias[:, None], of_heads(v_bias[:, None])])
    attention_in = np.concatenate([q, k, of_heads(v)]) * weight("input_layernorm")
    out = weight("self_attn.o_proj")
    by_head = turned(out.reshape(-1, shape.head_width)).reshape(out.shape)
    mlp_in = np.concatenate([weight("mlp.gate_proj"), weight("mlp.up_proj")]) * weight("post_attention_layernorm")
    mlp_out = turned(weight("mlp.down_proj")) / math.sqrt(turned_at_once(shape.hidden))
    return LlamaLayer(
        attention_in=quantised(turned(attention_in)),
        attention_bias=bias[:, 0].astype(np.float32),
        attention_out=quantised(turned_rows(by_head)),
        mlp_in=quantised(turned(mlp_in)),
        mlp_out=quantised(turned_rows(mlp_out)),
    )
