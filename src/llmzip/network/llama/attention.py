"""Attention over a window that keeps the first tokens of a text and the last one or two segments.

Positions are those inside the window: when it is full, its older segment falls out, and the keys of the other are
rotated back by one segment. The first tokens stay: a model that has lost these *attention sinks* predicts badly
(Xiao et al. 2023). Keys and values are int8 with a scale for each token and head; scores and weighted sums are integer
products, so no order of summation matters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.jit import inlined, jit, unowned
from llmzip.network.kernels import SMALLEST, quantise_row, quantise_to, rounded
from llmzip.network.llama.kernels import QUERY_PEAK, WEIGHT_ONE, output, power_below
from llmzip.network.llama.weights import SINKS, Shape
from llmzip.network.matmul_int16 import COLUMNS, PAIR, part_product

SHARE_ONE = np.float32(32767.0)  # the sum of a row's weights
SHARE_UNIT = np.float32(1.0 / 32767.0)


class Window(NamedTuple):
    """What the lanes attend to: ``[layers, lanes, kv_heads, ...]``, keys and values as products read them.

    Attributes:
        keys: int8[..., W / 16, head_width / 2, 16, 2], rotated.
        key_scales: float32[..., W].
        values: int8[..., head_width / 16, W / 2, 16, 2].
        value_scales: float32[..., W].
        value_peaks: float32[..., W], the largest value scale up to each token.
    """

    keys: npt.NDArray[np.int8]
    key_scales: npt.NDArray[np.float32]
    values: npt.NDArray[np.int8]
    value_scales: npt.NDArray[np.float32]
    value_peaks: npt.NDArray[np.float32]


class OwnWork(NamedTuple):
    """Buffers of one thread, for calls of T steps.

    Attributes:
        gathered: int16[T * group, head_width], the queries of one head of keys.
        scores: int32[T * group, W].
        weights: int16[T * group, W].
        mean: int32[T * group, head_width].
        rows: float32[2, head_width].
        narrow: int16[head_width].
        row: float32[d].
        hidden: float32[hidden].
    """

    gathered: npt.NDArray[np.int16]
    scores: npt.NDArray[np.int32]
    weights: npt.NDArray[np.int16]
    mean: npt.NDArray[np.int32]
    rows: npt.NDArray[np.float32]
    narrow: npt.NDArray[np.int16]
    row: npt.NDArray[np.float32]
    hidden: npt.NDArray[np.float32]


def padded_window(shape: Shape) -> int:
    """Return the window's length in whole blocks."""
    return -(-shape.window // COLUMNS) * COLUMNS


def new_window(shape: Shape, layers: int, lanes: int) -> Window:
    """Return the empty window before a text."""
    each, w = (layers, lanes, shape.kv_heads), padded_window(shape)
    pairs = shape.head_width // PAIR
    return Window(
        np.zeros((*each, w // COLUMNS, pairs, COLUMNS, PAIR), np.int8),
        np.zeros((*each, w), np.float32),
        np.zeros((*each, shape.head_width // COLUMNS, w // PAIR, COLUMNS, PAIR), np.int8),
        np.zeros((*each, w), np.float32),
        np.zeros((*each, w), np.float32),
    )


def new_own_work(shape: Shape, steps: int) -> OwnWork:
    """Return buffers for calls of up to `steps` steps."""
    together, w = steps * (shape.heads // shape.kv_heads), padded_window(shape)
    return OwnWork(
        np.zeros((together, shape.head_width), np.int16),
        np.zeros((together, w), np.int32),
        np.zeros((together, w), np.int16),
        np.zeros((together, shape.head_width), np.int32),
        np.zeros((2, shape.head_width), np.float32),
        np.zeros(shape.head_width, np.int16),
        np.zeros(shape.width, np.float32),
        np.zeros(shape.hidden, np.float32),
    )


@inlined
def rotate(row, cosine, sine, sign, turned):
    """Rotate the pairs of channels of `row`, i and i + half, by an angle, back if `sign` is -1 (Rotate 1-6)."""
    half = len(row) // 2
    for i in range(half):
        turn = np.float32(sine[i] * sign)
        ac, bs = np.float32(row[i] * cosine[i]), np.float32(row[half + i] * turn)
        bc, as_ = np.float32(row[half + i] * cosine[i]), np.float32(row[i] * turn)
        turned[i] = np.float32(ac - bs)
        turned[half + i] = np.float32(bc + as_)


@jit
def take_in(acc, s, scales, bias, at, slot, net, window, work, own, r):
    """Rotate and quantise one row's queries, and put its key and value into the window's `slot` (Attend 1-6).

    `acc` int32 ``[rows]`` is the row's product; `at` = (layer, lane); `r` is the row's number in `work`.
    """
    heads, width = work.queries.shape[1], work.queries.shape[2]
    groups = window.keys.shape[2]
    row, turned, narrow = unowned(own.rows[0]), unowned(own.rows[1]), unowned(own.narrow)
    cosine, sine = unowned(net.cosines[slot]), unowned(net.sines[slot])
    layer, lane = at
    for head in range(heads + 2 * groups):
        first = head * width
        for i in range(width):
            row[i] = np.float32(output(acc[first + i], s, scales[first + i]) + bias[first + i])
        if head < heads:
            rotate(row, cosine, sine, np.float32(1.0), turned)
            scale = quantise_to(QUERY_PEAK, turned, unowned(work.queries[r, head]))
            work.query_scales[r, head] = np.float32(scale * net.score_scale)
        elif head < heads + groups:
            rotate(row, cosine, sine, np.float32(1.0), turned)
            group = head - heads
            window.key_scales[layer, lane, group, slot] = quantise_row(turned, narrow)
            put_key(narrow, slot, unowned(window.keys[layer, lane, group]))
        else:
            group = head - heads - groups
            scale = quantise_row(row, narrow)
            put_value(narrow, slot, unowned(window.values[layer, lane, group]))
            window.value_scales[layer, lane, group, slot] = scale


@inlined
def put_key(key, slot, keys):
    """Write a key int16 ``[head_width]`` into a head's packed keys."""
    block, column = keys[slot // COLUMNS], slot % COLUMNS
    for i in range(len(key) // PAIR):
        block[i, column, 0] = key[PAIR * i]
        block[i, column, 1] = key[PAIR * i + 1]


@inlined
def put_value(value, slot, values):
    """Write a value int16 ``[head_width]`` into a head's packed values."""
    pair, odd = slot // PAIR, slot % PAIR
    for block in range(len(value) // COLUMNS):
        for i in range(COLUMNS):
            values[block, pair, i, odd] = value[block * COLUMNS + i]


@inlined
def follow_peak(peaks, scales, slot):
    """Write the largest scale up to a slot, at least SMALLEST, behind the one before (Attend 7)."""
    before = peaks[slot - 1] if slot > 0 else SMALLEST
    peaks[slot] = scales[slot] if scales[slot] > before else before


@jit
def weigh(scores, scale, key_scales, visible, value_scales, value_peak, weights):
    """Turn one row's integer scores into the weights of the values, int16 with a sum of about 2^15 (Weigh 2-15).

    The row sees `visible` tokens.
    """
    peak = np.int32(-(1 << 30))
    for t in range(visible):
        score = rounded(output(scores[t], scale, key_scales[t]))
        scores[t] = score
        peak = score if score > peak else peak
    total = np.int32(0)
    for t in range(visible):
        weight = power_below(np.int32(peak - scores[t]), WEIGHT_ONE)
        scores[t] = weight
        total += weight
    share = np.float32(SHARE_ONE / np.float32(total))
    share = np.float32(share / value_peak)
    for t in range(visible):
        y = np.float32(np.float32(scores[t]) * share)
        weights[t] = np.int16(rounded(np.float32(y * value_scales[t])))


@jit
def attend(at, slot, steps, lanes, window, work, own):
    """Write the means of the values for `steps` rows, the first one at `slot`, into `work.mixed` (Attend 7-13).

    `at` = (layer, lane, number of the head of keys and values).
    """
    layer, lane, group = at
    heads, width = work.queries.shape[1], work.queries.shape[2]
    each = heads // window.keys.shape[2]
    visible = slot + steps
    blocks, pairs = (visible + COLUMNS - 1) // COLUMNS, (visible + PAIR - 1) // PAIR
    gathered, scores, weights, mean = (
        unowned(own.gathered),
        unowned(own.scores),
        unowned(own.weights),
        unowned(own.mean),
    )
    for t in range(steps):
        for k in range(each):
            query = unowned(work.queries[t * lanes + lane, group * each + k])
            for i in range(width):
                gathered[t * each + k, i] = query[i]
    keys, values = unowned(window.keys[layer, lane, group]), unowned(window.values[layer, lane, group])
    key_scales = unowned(window.key_scales[layer, lane, group])
    value_scales = unowned(window.value_scales[layer, lane, group])
    value_peaks = unowned(window.value_peaks[layer, lane, group])
    for t in range(slot, visible):
        follow_peak(value_peaks, value_scales, t)
    part_product(steps * each, gathered, keys, blocks, width // PAIR, scores)
    for t in range(steps):
        seen = slot + t + 1
        for k in range(each):
            row = t * each + k
            scale = work.query_scales[t * lanes + lane, group * each + k]
            weight = unowned(weights[row])
            weigh(unowned(scores[row]), scale, key_scales, seen, value_scales, value_peaks[seen - 1], weight)
            for i in range(seen, pairs * PAIR):
                weight[i] = 0
    part_product(steps * each, weights, values, width // COLUMNS, pairs, mean)
    for t in range(steps):
        scale = np.float32(value_peaks[slot + t] * SHARE_UNIT)
        for k in range(each):
            first = (group * each + k) * width
            for i in range(width):
                work.mixed[t * lanes + lane, first + i] = np.float32(np.float32(mean[t * each + k, i]) * scale)


@jit
def move_on(segment, net, window, own):
    """Drop the window's older segment and rotate the keys of the other back by its length (Move 1-3)."""
    layers, lanes, groups = window.keys.shape[:3]
    row, turned, narrow = unowned(own.rows[0]), unowned(own.rows[1]), unowned(own.narrow)
    width = len(narrow)
    cosine, sine = unowned(net.cosines[segment]), unowned(net.sines[segment])
    for layer in range(layers):
        for lane in range(lanes):
            for group in range(groups):
                keys, values = unowned(window.keys[layer, lane, group]), unowned(window.values[layer, lane, group])
                scales = unowned(window.key_scales[layer, lane, group])
                value_scales = unowned(window.value_scales[layer, lane, group])
                peaks = unowned(window.value_peaks[layer, lane, group])
                for slot in range(SINKS, SINKS + segment):
                    old = slot + segment
                    for i in range(width):
                        key = keys[old // COLUMNS, i // PAIR, old % COLUMNS, i % PAIR]
                        row[i] = np.float32(np.float32(key) * scales[old])
                    rotate(row, cosine, sine, np.float32(-1.0), turned)
                    scales[slot] = quantise_row(turned, narrow)
                    put_key(narrow, slot, keys)
                    for i in range(width):
                        narrow[i] = values[i // COLUMNS, old // PAIR, i % COLUMNS, old % PAIR]
                    put_value(narrow, slot, values)
                    value_scales[slot] = value_scales[old]
                    follow_peak(peaks, value_scales, slot)
