"""The token mixer ``transformer``: causal attention over a window, with a learnt bias by distance.

Scores are integer products of quantised queries and keys; the weights come from the frozen table of 2^x, and the
weighted sums of fixed-point values are integers: no float sum is taken anywhere, so no order of summation matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from llmzip.exp2 import exp2_table
from llmzip.jit import jit
from llmzip.network import kernels
from llmzip.network.kernels import ROUNDER, linear, quantise_row
from llmzip.network.weights import Matrix, OtherLayer

WINDOW = 128  # tokens that a token attends to, itself included
HEAD_WIDTH = 32  # channels of a head, if they divide the width; else there is one head
SCORE_BOUND = np.float32(2.0**20)
VALUE_BOUND = np.float32(64.0)
VALUE_UNITS = np.float32(512.0)  # values count 2^-9
VALUE_UNIT = np.float32(2.0**-9)


def heads_for(width: int) -> int:
    """Return the number of heads."""
    return width // HEAD_WIDTH if width % HEAD_WIDTH == 0 else 1


def _shapes(width: int) -> dict[str, tuple[int, ...]]:
    return {"token_in": (3 * width, width), "token_distance": (heads_for(width) * WINDOW,), "token_out": (width, width)}


@dataclass(frozen=True, kw_only=True)
class TransformerLayer(OtherLayer):
    """The weights of one layer."""

    arch: ClassVar[str] = "transformer"
    token_shapes: ClassVar[Callable[[int], dict[str, tuple[int, ...]]]] = _shapes

    token_in: Matrix  # [3 d, d]: query, key, value; the query's scales include 4096 log2(e) / sqrt(d / heads)
    token_distance: np.ndarray  # float32 [heads * WINDOW], added to the scores, in powers of two
    token_out: Matrix  # [d, d]


@jit
def rounded(x):
    """Return the integer nearest to |x| <= 2^22, ties to even."""
    v = np.float32(x + ROUNDER)
    return np.int32(np.float32(v - ROUNDER))


@jit
def take_in(acc, s, scales, query, query_scale, keys, key_scales, values):
    """Quantise one row's query and key by heads, and its values (Transformer 1-5).

    `acc` int32 ``[3 d]`` is the row's product, `s` its scale. Written are `query` int16 ``[d]`` and `query_scale`
    float32 ``[heads]``, and the slot of the window that the token takes: `keys` int16 ``[d]``, `key_scales`
    float32 ``[heads]``, `values` int32 ``[d]``.
    """
    d, heads = len(query), len(query_scale)
    each = d // heads
    row = np.empty(each, np.float32)
    for head in range(heads):
        part = slice(head * each, head * each + each)
        for i in range(each):
            y = np.float32(np.float32(acc[head * each + i]) * s)
            row[i] = np.float32(y * scales[head * each + i])
        query_scale[head] = quantise_row(row, query[part])
        for i in range(each):
            j = d + head * each + i
            row[i] = linear(acc[j], s, scales[j])
        key_scales[head] = quantise_row(row, keys[part])
    for i in range(d):
        y = linear(acc[2 * d + i], s, scales[2 * d + i])
        y = VALUE_BOUND if y > VALUE_BOUND else y
        y = -VALUE_BOUND if y < -VALUE_BOUND else y
        values[i] = rounded(np.float32(y * VALUE_UNITS))


@jit
def attend(position, query, query_scale, keys, key_scales, values, distance, exp2, out):
    """Write one row's mean of the values in the window (Transformer 6-17); `out` float32 ``[d]``.

    `position` counts the lane's tokens; the token at position p is in slot p mod WINDOW of `keys` ``[WINDOW, d]``,
    `key_scales` and `values`.
    """
    window, d = keys.shape
    heads = len(query_scale)
    each = d // heads
    visible = min(position + 1, window)
    score = np.empty(visible, np.int32)
    for head in range(heads):
        first = head * each
        peak = np.int32(-(1 << 30))
        for back in range(visible):
            slot = (position - back) % window
            dot = np.int32(0)
            for i in range(first, first + each):
                dot += np.int32(query[i]) * np.int32(keys[slot, i])
            x = np.float32(np.float32(dot) * query_scale[head])
            x = np.float32(x * key_scales[slot, head])
            x = SCORE_BOUND if x > SCORE_BOUND else x
            x = -SCORE_BOUND if x < -SCORE_BOUND else x
            score[back] = np.int32(rounded(x) + distance[head, back])
            peak = max(peak, score[back])
        total = np.int64(0)
        for back in range(visible):
            e = np.int64(peak) - np.int64(score[back])
            weight = np.int32(exp2[e & 4095] >> min(e >> 12, 31))
            score[back] = weight
            total += np.int64(weight)
        divisor = np.float32(total)
        for i in range(first, first + each):
            mass = np.int64(0)
            for back in range(visible):
                mass += np.int64(score[back]) * np.int64(values[(position - back) % window, i])
            mean = np.float32(np.float32(mass) / divisor)
            out[i] = np.float32(mean * VALUE_UNIT)


@jit
def attend_rows(position, acc, s, scales, keys, key_scales, values, distance, exp2, q):
    """Run the rows of `acc` int32 ``[T * B, 3 d]`` in time order; the first is at `position`. Updates `q` and `s`."""
    lanes, d = keys.shape[0], keys.shape[2]
    query, out = np.empty(d, np.int16), np.empty(d, np.float32)
    query_scale = np.empty(key_scales.shape[2], np.float32)
    for row in range(q.shape[0]):
        lane, at = row % lanes, position + row // lanes
        slot = at % keys.shape[1]
        here = keys[lane, slot], key_scales[lane, slot], values[lane, slot]
        take_in(acc[row], s[row], scales, query, query_scale, here[0], here[1], here[2])
        attend(at, query, query_scale, keys[lane], key_scales[lane], values[lane], distance, exp2, out)
        s[row] = quantise_row(out, q[row])


class TransformerMixer:
    """The state of one layer: the window's keys and values."""

    def __init__(self, layer: TransformerLayer, lanes: int):
        d = len(layer.channel_shift)
        heads = heads_for(d)
        self._layer, self._position, self._exp2 = layer, 0, exp2_table()
        self._keys = np.zeros((lanes, WINDOW, d), np.int16)
        self._key_scales = np.zeros((lanes, WINDOW, heads), np.float32)
        self._values = np.zeros((lanes, WINDOW, d), np.int32)
        units = np.rint(layer.token_distance * np.float32(4096)).astype(np.int32)
        self._distance = units.reshape(heads, WINDOW)

    def run(self, work: Any, product: Any, inverse_width: np.float32) -> None:
        """Add the mixer's output to the rows `work.x`; see :class:`.registry.TokenMixer`."""
        layer, x, q, s = self._layer, work.x, work.q, work.s
        kernels.normalised_input(x, inverse_width, q, s, work.scratch)
        product(layer.token_in, q, work.acc_in)
        scales, window = layer.token_in.scale, (self._keys, self._key_scales, self._values)
        attend_rows(self._position, work.acc_in, s, scales, *window, self._distance, self._exp2, q)
        self._position += len(x) // len(self._keys)
        product(layer.token_out, q, work.acc)
        kernels.add_residual(x, work.acc, s, layer.token_out.scale)
