"""The forward pass of a Llama-type network in one compiled call, and the sessions that use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from llmzip.errors import HardwareError
from llmzip.jit import jit
from llmzip.network import matmul
from llmzip.network.cpu import require_denormals
from llmzip.network.llama import attention, kernels
from llmzip.network.llama.flat_head import FlatPrediction, new_prediction, sum_clusters
from llmzip.network.llama.turn import turned_at_once
from llmzip.network.llama.weights import WEIGHT_PEAK, LlamaWeights, Shape
from llmzip.network.packed import KERNELS, packed_product, packed_shape, sum_is_right
from llmzip.network.weights import Matrix

Arrays = TypeVar("Arrays", bound=tuple[Any, ...])

STEPS_AT_ONCE = 16
RECHECK_ROWS = 8  # for each of which another sum is recomputed
RECHECK_STRIDE = 7919  # between two columns whose sums are
TESTED_ROWS, TESTED_COLUMNS = 32, 512  # of the head, which is like any other matrix


class Net(NamedTuple):
    """The weights for :func:`forward`: matrices packed, those of layers stacked."""

    embedding: npt.NDArray[np.int8]
    embedding_scale: npt.NDArray[np.float32]
    attention_in: npt.NDArray[np.int8]
    attention_in_scale: npt.NDArray[np.float32]
    attention_bias: npt.NDArray[np.float32]
    attention_out: npt.NDArray[np.int8]
    attention_out_scale: npt.NDArray[np.float32]
    mlp_in: npt.NDArray[np.int8]
    mlp_in_scale: npt.NDArray[np.float32]
    mlp_out: npt.NDArray[np.int8]
    mlp_out_scale: npt.NDArray[np.float32]
    norm: npt.NDArray[np.float32]
    head: npt.NDArray[np.int8]
    head_scale: npt.NDArray[np.float32]
    absent: npt.NDArray[np.int32]
    cluster_starts: npt.NDArray[np.int32]
    cosines: npt.NDArray[np.float32]
    sines: npt.NDArray[np.float32]
    score_scale: np.float32
    inverse_width: np.float32
    epsilon: np.float32
    peak: np.float32
    turned: int
    hidden_turned: int


class Work(NamedTuple):
    """Buffers for the rows of one call."""

    x: npt.NDArray[np.float32]
    q: npt.NDArray[np.int16]
    q_mixed: npt.NDArray[np.int16]
    q_hidden: npt.NDArray[np.int16]
    s: npt.NDArray[np.float32]
    acc_attention: npt.NDArray[np.int32]
    acc: npt.NDArray[np.int32]
    acc_mlp: npt.NDArray[np.int32]
    queries: npt.NDArray[np.int16]  # [R, heads, head_width]
    query_scales: npt.NDArray[np.float32]
    mixed: npt.NDArray[np.float32]


def new_net(weights: LlamaWeights, pack: Callable[[np.ndarray], np.ndarray]) -> Net:
    """Return the weights as kernels read them, packed by `pack`."""
    layers, shape = weights.layers, weights.shape

    def packed(name: str) -> npt.NDArray[Any]:
        first = pack(getattr(layers[0], name).q)
        stacked = np.empty((len(layers), *first.shape), first.dtype)
        for i, layer in enumerate(layers):
            stacked[i] = pack(getattr(layer, name).q)
        return stacked

    def stacked(name: str) -> npt.NDArray[np.float32]:
        return np.stack([getattr(layer, name) for layer in layers])

    def scales(name: str) -> npt.NDArray[np.float32]:
        return np.stack([getattr(layer, name).scale for layer in layers])

    head, head_scale = weights.head_matrix()
    return Net(
        embedding=weights.embedding.q,
        embedding_scale=weights.embedding.scale,
        attention_in=packed("attention_in"),
        attention_in_scale=scales("attention_in"),
        attention_bias=stacked("attention_bias"),
        attention_out=packed("attention_out"),
        attention_out_scale=scales("attention_out"),
        mlp_in=packed("mlp_in"),
        mlp_in_scale=scales("mlp_in"),
        mlp_out=packed("mlp_out"),
        mlp_out_scale=scales("mlp_out"),
        norm=weights.norm,
        head=pack(head),
        head_scale=head_scale * kernels.UNITS_OF_NATS,
        absent=weights.absent,
        cluster_starts=np.append(weights.cluster_starts, weights.vocab).astype(np.int32),
        cosines=weights.cosines,
        sines=weights.sines,
        score_scale=kernels.score_scale(shape.head_width),
        inverse_width=np.float32(1.0 / shape.width),
        epsilon=np.float32(weights.epsilon),
        peak=kernels.norm_peak(shape.width),
        turned=turned_at_once(shape.width),
        hidden_turned=turned_at_once(shape.hidden),
    )


def new_work(shape: Shape, net: Net, rows: int) -> Work:
    """Return buffers for calls of up to `rows` rows."""

    def columns(packed: npt.NDArray[Any]) -> int:
        blocks, _, columns, _ = packed_shape(packed)
        return blocks * columns

    mixed = shape.heads * shape.head_width
    return Work(
        x=np.zeros((rows, shape.width), np.float32),
        q=np.zeros((rows, shape.width), np.int16),
        q_mixed=np.zeros((rows, mixed), np.int16),
        q_hidden=np.zeros((rows, shape.hidden), np.int16),
        s=np.zeros(rows, np.float32),
        acc_attention=np.zeros((rows, columns(net.attention_in[0])), np.int32),
        acc=np.zeros((rows, columns(net.mlp_out[0])), np.int32),
        acc_mlp=np.zeros((rows, columns(net.mlp_in[0])), np.int32),
        queries=np.zeros((rows, shape.heads, shape.head_width), np.int16),
        query_scales=np.zeros((rows, shape.heads), np.float32),
        mixed=np.zeros((rows, mixed), np.float32),
    )


@jit
def product(rows, q, packed, acc, counts):
    """Write the products of `rows` rows with a packed matrix; check some of the sums.

    `counts` int64[2]: sums checked, wrong ones; or empty to check none.
    """
    packed_product(q[:rows], packed, acc[:rows])
    if len(counts):
        blocks, _, columns, _ = packed_shape(packed)
        for _ in range(1 + rows // RECHECK_ROWS):
            counts[0] += 1
            row, column = counts[0] % rows, counts[0] * RECHECK_STRIDE % (blocks * columns)
            if not sum_is_right(q[row], packed, acc[row], column):
                counts[1] += 1


@jit
def mix_tokens(i, slot, lanes, net, window, work, own, counts):
    """Run the attention of layer `i` on normalised rows (Step 4-5)."""
    rows, s = len(work.s), work.s
    product(rows, work.q, net.attention_in[i], work.acc_attention, counts)
    scales, bias = net.attention_in_scale[i], net.attention_bias[i]
    for row in range(rows):
        acc = work.acc_attention[row]
        at = i, row % lanes
        attention.take_in(acc, s[row], scales, bias, at, slot + row // lanes, net, window, work, own, row)
    groups = window.keys.shape[2]
    for k in range(lanes * groups):
        attention.attend((i, k // groups, k % groups), slot, rows // lanes, lanes, window, work, own)
    kernels.mixed_rows(rows, work.mixed, work.q_mixed, s)
    product(rows, work.q_mixed, net.attention_out[i], work.acc, counts)
    kernels.add_residual(rows, work.x, work.acc, s, net.attention_out_scale[i])


@jit
def mix_channels(i, net, work, own, counts):
    """Run the MLP of layer `i` on normalised rows (Step 6)."""
    rows, s = len(work.s), work.s
    product(rows, work.q, net.mlp_in[i], work.acc_mlp, counts)
    scales = net.mlp_in_scale[i]
    kernels.gate_rows(rows, work.acc_mlp, net.hidden_turned, s, scales, work.q_hidden, own.hidden)
    product(rows, work.q_hidden, net.mlp_out[i], work.acc, counts)
    kernels.add_residual(rows, work.x, work.acc, s, net.mlp_out_scale[i])


@jit
def forward(ids, slot, lanes, net, window, work, own, found, counts):
    """Run inputs int32 ``[T * B]`` in time order, the first at `slot` of the window (Step 2-11).

    `work` has as many rows as `ids`. Updates `window`, and writes the prediction `found` for these rows.
    """
    rows = len(ids)
    norm = net.inverse_width, net.epsilon, net.peak
    for row in range(rows):
        token = ids[row]
        for k in range(work.x.shape[1]):
            work.x[row, k] = np.float32(np.float32(net.embedding[token, k]) * net.embedding_scale[token])
    for i in range(len(net.attention_in)):
        kernels.norm_rows(rows, work.x, *norm, work.q, work.s)
        mix_tokens(i, slot, lanes, net, window, work, own, counts)
        kernels.norm_rows(rows, work.x, *norm, work.q, work.s)
        mix_channels(i, net, work, own, counts)
    kernels.head_rows(rows, work.x, net.norm, net.turned, *norm, work.q, work.s, own.row)
    product(rows, work.q, net.head, found.frequencies, counts)
    for row in range(rows):
        kernels.frequencies(found.frequencies[row], work.s[row], net.head_scale, net.absent)
        found.likeliest[row] = sum_clusters(found.frequencies[row], net.cluster_starts, found.sums[row])


def _rows(arrays: Arrays, rows: slice) -> Arrays:
    """Return some rows of each array of a named tuple."""
    kind: Any = type(arrays)
    some: Arrays = kind(*(array[rows] for array in arrays))
    return some


class LlamaNetwork:
    """Weights bound to this machine's kernels; may be shared between sessions and threads."""

    segment_rows = 128  # rows the encoder runs at once: each has a frequency for every token

    def __init__(self, weights: LlamaWeights, *, backend: str | None = None):
        self.weights = weights
        layer = {m.q.shape for m in vars(weights.layers[0]).values() if isinstance(m, Matrix)}
        shapes = layer | {(TESTED_COLUMNS, weights.width)}
        if backend:
            self.backend = matmul.fitting(backend, shapes, WEIGHT_PEAK)
        else:
            self.backend = matmul.choose(shapes, TESTED_ROWS, WEIGHT_PEAK)
        self.net = new_net(weights, KERNELS.get(self.backend, KERNELS["int16"]).pack)

    def session(self, lanes: int, *, recheck: bool = False) -> LlamaSession:
        """Return a fresh state for `lanes` texts; `recheck` computes some sums of every product another way."""
        return LlamaSession(self, lanes, recheck)


class LlamaSession:
    """The network's state of `lanes` texts; not for two threads at a time."""

    def __init__(self, network: LlamaNetwork, lanes: int, recheck: bool):
        shape, layers = network.weights.shape, len(network.weights.layers)
        self.network, self.lanes = network, lanes
        self._window = attention.new_window(shape, layers, lanes)
        self._slot, self._end = 0, shape.window
        self._counts = np.zeros(2 if recheck else 0, np.int64)
        self._steps = 0

    def run(self, ids: np.ndarray) -> FlatPrediction:
        """Run inputs int32 ``[T, B]`` (the start of text first) and return what follows each."""
        require_denormals()
        net, (steps, lanes) = self.network.net, ids.shape
        shape = self.network.weights.shape
        if self._steps < min(steps, STEPS_AT_ONCE):
            self._steps = min(steps, STEPS_AT_ONCE)
            self._work = new_work(shape, net, self._steps * lanes)
            self._own = attention.new_own_work(shape, self._steps)
        blocks, _, columns, _ = packed_shape(net.head)
        found = new_prediction(steps, lanes, blocks * columns, len(net.cluster_starts))
        flat, rows = np.ascontiguousarray(ids).reshape(-1), found.by_rows()
        at = 0
        while at < steps:
            if self._slot == self._end:
                attention.move_on(shape.segment, net, self._window, self._own)
                self._slot -= shape.segment
            count = min(steps - at, STEPS_AT_ONCE, self._end - self._slot)
            part = slice(at * lanes, (at + count) * lanes)
            work, own = _rows(self._work, slice(0, count * lanes)), self._own
            state = net, self._window, work, own, _rows(rows, part), self._counts
            forward(flat[part], self._slot, lanes, *state)
            at, self._slot = at + count, self._slot + count
        if len(self._counts) and self._counts[1]:
            raise HardwareError(matmul.RECHECK_FAILED)
        return found
