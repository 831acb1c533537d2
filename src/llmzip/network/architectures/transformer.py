"""The token mixer ``transformer``: causal attention over a window, with a learnt bias by distance.

Scores are integer products of quantised queries and keys; the weights come from the frozen table of 2^x, and the
weighted sums of fixed-point values are integers: no float sum is taken anywhere, so no order of summation matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.exp2 import exp2_table
from llmzip.jit import jit
from llmzip.network import kernels
from llmzip.network.kernels import Products, clamped, linear, quantise_row, rounded
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


class Query(NamedTuple):
    """A row's query: `q` int16 ``[d]`` and a scale for each head, float32."""

    q: npt.NDArray[np.int16]
    scales: npt.NDArray[np.float32]


class Window(NamedTuple):
    """What the lanes attend to; the token at position p of a lane is in slot p mod WINDOW.

    Attributes:
        keys: int16[lanes, WINDOW, d].
        key_scales: float32[lanes, WINDOW, heads].
        values: int32[lanes, WINDOW, d].
    """

    keys: npt.NDArray[np.int16]
    key_scales: npt.NDArray[np.float32]
    values: npt.NDArray[np.int32]


@jit
def take_in(acc, s, scales, query, lane, slot, window):
    """Quantise one row's query and key by heads, and its values (Transformer 1-5).

    `acc` int32 ``[3 d]`` is the row's product, `s` its scale. Written are `query` and the slot of the window that the
    token takes.
    """
    d, heads = len(query.q), len(query.scales)
    each = d // heads
    keys, values = window.keys[lane, slot], window.values[lane, slot]
    row = np.empty(each, np.float32)
    for head in range(heads):
        part = slice(head * each, head * each + each)
        for i in range(each):
            y = np.float32(np.float32(acc[head * each + i]) * s)
            row[i] = np.float32(y * scales[head * each + i])
        query.scales[head] = quantise_row(row, query.q[part])
        for i in range(each):
            j = d + head * each + i
            row[i] = linear(acc[j], s, scales[j])
        window.key_scales[lane, slot, head] = quantise_row(row, keys[part])
    for i in range(d):
        y = clamped(linear(acc[2 * d + i], s, scales[2 * d + i]), VALUE_BOUND)
        values[i] = rounded(np.float32(y * VALUE_UNITS))


@jit
def attend(position, query, lane, window, distance, exp2, out):
    """Write one row's mean of the values in its lane's window (Transformer 6-17); `out` float32 ``[d]``.

    `position` counts the lane's tokens.
    """
    keys, key_scales, values = window.keys[lane], window.key_scales[lane], window.values[lane]
    slots, d = keys.shape
    heads = len(query.scales)
    each = d // heads
    visible = min(position + 1, slots)
    score = np.empty(visible, np.int32)
    for head in range(heads):
        first = head * each
        peak = np.int32(-(1 << 30))
        for back in range(visible):
            slot = (position - back) % slots
            dot = np.int32(0)
            for i in range(first, first + each):
                dot += np.int32(query.q[i]) * np.int32(keys[slot, i])
            x = np.float32(np.float32(dot) * query.scales[head])
            x = clamped(np.float32(x * key_scales[slot, head]), SCORE_BOUND)
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
                mass += np.int64(score[back]) * np.int64(values[(position - back) % slots, i])
            mean = np.float32(np.float32(mass) / divisor)
            out[i] = np.float32(mean * VALUE_UNIT)


@jit
def attend_rows(position, products, window, distance, exp2, q):
    """Run the rows of `products` ``[T * B, 3 d]`` in time order; the first is at `position`.

    Updated are `window`, `q` int16 ``[T * B, d]`` and the scales of the rows.
    """
    lanes, slots, d = window.keys.shape
    s, out = products.row_scales, np.empty(d, np.float32)
    query = Query(np.empty(d, np.int16), np.empty(window.key_scales.shape[2], np.float32))
    for row in range(q.shape[0]):
        lane, at = row % lanes, position + row // lanes
        take_in(products.acc[row], s[row], products.scales, query, lane, at % slots, window)
        attend(at, query, lane, window, distance, exp2, out)
        s[row] = quantise_row(out, q[row])


class TransformerMixer:
    """The state of one layer: the window's keys and values."""

    def __init__(self, layer: TransformerLayer, lanes: int):
        d = len(layer.channel_shift)
        heads = heads_for(d)
        self._layer, self._position, self._exp2 = layer, 0, exp2_table()
        self._window = Window(
            np.zeros((lanes, WINDOW, d), np.int16),
            np.zeros((lanes, WINDOW, heads), np.float32),
            np.zeros((lanes, WINDOW, d), np.int32),
        )
        units = np.rint(layer.token_distance * np.float32(4096)).astype(np.int32)
        self._distance = units.reshape(heads, WINDOW)

    def run(self, work: Any, product: Any, inverse_width: np.float32) -> None:
        """Add the mixer's output to the rows `work.x`; see :class:`.registry.TokenMixer`."""
        layer, x, q, s = self._layer, work.x, work.q, work.s
        kernels.normalised_input(x, inverse_width, q, s, work.scratch)
        product(layer.token_in, q, work.acc_in)
        products = Products(work.acc_in, s, layer.token_in.scale)
        attend_rows(self._position, products, self._window, self._distance, self._exp2, q)
        self._position += len(x) // len(self._window.keys)
        product(layer.token_out, q, work.acc)
        kernels.add_residual(x, work.acc, s, layer.token_out.scale)
