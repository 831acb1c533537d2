"""The forward pass of a Llama-type network in one compiled call, and the sessions that use it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.jit import jit
from llmzip.network import kernels as common
from llmzip.network.llama import attention, kernels
from llmzip.network.llama.flat_head import FlatPrediction, sum_clusters
from llmzip.network.llama.weights import LlamaWeights
from llmzip.network.matmul_int16 import COLUMNS, pack_pairs, part_product

STEPS_AT_ONCE = 16


class Net(NamedTuple):
    """The weights for :func:`forward`: matrices packed, those of layers stacked."""

    embedding: npt.NDArray[np.int8]
    embedding_scale: npt.NDArray[np.float32]
    attention_norm: npt.NDArray[np.float32]
    attention_in: npt.NDArray[np.int8]
    attention_in_scale: npt.NDArray[np.float32]
    attention_bias: npt.NDArray[np.float32]
    attention_out: npt.NDArray[np.int8]
    attention_out_scale: npt.NDArray[np.float32]
    mlp_norm: npt.NDArray[np.float32]
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
    mixed: npt.NDArray[np.float32]
    scratch: npt.NDArray[np.float32]
    scratch_hidden: npt.NDArray[np.float32]


def _columns(n: int) -> int:
    return -(-n // COLUMNS) * COLUMNS


def new_net(weights: LlamaWeights) -> Net:
    """Return the weights as kernels read them."""
    layers, shape = weights.layers, weights.shape

    def packed(name: str) -> npt.NDArray[np.int8]:
        first = pack_pairs(getattr(layers[0], name).q)
        stacked = np.empty((len(layers), *first.shape), np.int8)
        for i, layer in enumerate(layers):
            stacked[i] = pack_pairs(getattr(layer, name).q)
        return stacked

    def stacked(name: str) -> npt.NDArray[np.float32]:
        return np.stack([getattr(layer, name) for layer in layers])

    def scales(name: str) -> npt.NDArray[np.float32]:
        return np.stack([getattr(layer, name).scale for layer in layers])

    head = weights.embedding.q[:-1] if weights.head is None else weights.head.q
    head_scale = weights.embedding.scale[:-1] if weights.head is None else weights.head.scale
    units = np.float32(kernels.LOG2E * np.float32(1 << kernels.SCORE_BITS))
    return Net(
        embedding=weights.embedding.q,
        embedding_scale=weights.embedding.scale,
        attention_norm=stacked("attention_norm"),
        attention_in=packed("attention_in"),
        attention_in_scale=scales("attention_in"),
        attention_bias=stacked("attention_bias"),
        attention_out=packed("attention_out"),
        attention_out_scale=scales("attention_out"),
        mlp_norm=stacked("mlp_norm"),
        mlp_in=packed("mlp_in"),
        mlp_in_scale=scales("mlp_in"),
        mlp_out=packed("mlp_out"),
        mlp_out_scale=scales("mlp_out"),
        norm=weights.norm,
        head=pack_pairs(head),
        head_scale=head_scale * units,
        absent=weights.absent,
        cluster_starts=np.append(weights.cluster_starts, weights.vocab).astype(np.int32),
        cosines=weights.cosines,
        sines=weights.sines,
        score_scale=np.float32(units / np.float32(math.sqrt(shape.head_width))),
        inverse_width=np.float32(1.0 / shape.width),
        epsilon=np.float32(weights.epsilon),
        peak=kernels.norm_peak(shape.width),
    )


def new_work(weights: LlamaWeights, rows: int) -> Work:
    """Return buffers for calls of up to `rows` rows."""
    shape = weights.shape
    mixed = shape.heads * shape.head_width
    return Work(
        x=np.zeros((rows, shape.width), np.float32),
        q=np.zeros((rows, shape.width), np.int16),
        q_mixed=np.zeros((rows, mixed), np.int16),
        q_hidden=np.zeros((rows, shape.hidden), np.int16),
        s=np.zeros(rows, np.float32),
        acc_attention=np.zeros((rows, _columns(shape.attention_rows)), np.int32),
        acc=np.zeros((rows, _columns(shape.width)), np.int32),
        acc_mlp=np.zeros((rows, _columns(2 * shape.hidden)), np.int32),
        mixed=np.zeros((rows, mixed), np.float32),
        scratch=np.zeros(shape.width, np.float32),
        scratch_hidden=np.zeros(shape.hidden, np.float32),
    )


@jit
def whole_product(rows, q, packed, acc):
    """Write the products of `rows` rows with a whole packed matrix."""
    part_product(rows, q, packed, packed.shape[0], packed.shape[1], acc)


@jit
def mix_tokens(i, slot, rows, lanes, net, window, work, own):
    """Run the attention of layer `i` (Step 2-5)."""
    x, q, s = work.x, work.q, work.s
    common_args = net.inverse_width, net.epsilon, net.peak
    kernels.norm_rows(rows, x, net.attention_norm[i], *common_args, q, s, work.scratch)
    whole_product(rows, q, net.attention_in[i], work.acc_attention)
    scales, bias = net.attention_in_scale[i], net.attention_bias[i]
    for row in range(rows):
        acc = work.acc_attention[row]
        attention.take_in(acc, s[row], scales, bias, (i, row % lanes), slot + row // lanes, net, window, own, row)
    for lane in range(lanes):
        attention.attend((i, lane), slot, rows // lanes, lanes, window, own, work.mixed)
    for row in range(rows):
        s[row] = common.quantise_to(kernels.PEAK, work.mixed[row], work.q_mixed[row])
    whole_product(rows, work.q_mixed, net.attention_out[i], work.acc)
    kernels.add_residual(rows, x, work.acc, s, net.attention_out_scale[i])


@jit
def mix_channels(i, rows, net, work):
    """Run the MLP of layer `i` (Step 6-8)."""
    x, q, s = work.x, work.q, work.s
    kernels.norm_rows(rows, x, net.mlp_norm[i], net.inverse_width, net.epsilon, net.peak, q, s, work.scratch)
    whole_product(rows, q, net.mlp_in[i], work.acc_mlp)
    kernels.gate_rows(rows, work.acc_mlp, s, net.mlp_in_scale[i], work.q_hidden, work.scratch_hidden)
    whole_product(rows, work.q_hidden, net.mlp_out[i], work.acc)
    kernels.add_residual(rows, x, work.acc, s, net.mlp_out_scale[i])


@jit
def forward(ids, slot, lanes, net, window, work, own, found):
    """Run inputs int32 ``[T * B]`` in time order, the first at `slot` of the window (Step 1-11).

    Writes the frequencies int32 ``[T * B, V or more]``; updates `window`.
    """
    rows = len(ids)
    for row in range(rows):
        token = ids[row]
        for k in range(work.x.shape[1]):
            work.x[row, k] = np.float32(np.float32(net.embedding[token, k]) * net.embedding_scale[token])
    for i in range(len(net.attention_norm)):
        mix_tokens(i, slot, rows, lanes, net, window, work, own)
        mix_channels(i, rows, net, work)
    kernels.norm_rows(rows, work.x, net.norm, net.inverse_width, net.epsilon, net.peak, work.q, work.s, work.scratch)
    whole_product(rows, work.q, net.head, found)
    for row in range(rows):
        kernels.frequencies(found[row], work.s[row], net.head_scale, net.absent)


class LlamaNetwork:
    """Weights bound to this machine's kernels; may be shared between sessions and threads."""

    segment_rows = 128  # rows the encoder runs at once: each has a frequency for every token

    def __init__(self, weights: LlamaWeights):
        self.weights, self.net = weights, new_net(weights)

    def session(self, lanes: int, *, recheck: bool = False) -> LlamaSession:  # noqa: ARG002
        """Return a fresh state for `lanes` texts."""
        return LlamaSession(self, lanes)


class LlamaSession:
    """The network's state of `lanes` texts; not for two threads at a time."""

    def __init__(self, network: LlamaNetwork, lanes: int):
        shape, layers = network.weights.shape, len(network.weights.layers)
        self.network, self.lanes = network, lanes
        self._window = attention.new_window(shape, layers, lanes)
        self._slot, self._end = 0, shape.window
        self._steps = 0

    def run(self, ids: np.ndarray) -> FlatPrediction:
        """Run inputs int32 ``[T, B]`` (the start of text first) and return what follows each."""
        weights, net = self.network.weights, self.network.net
        steps, lanes = ids.shape
        segment = weights.shape.segment
        found = np.empty((steps * lanes, net.head.shape[0] * COLUMNS), np.int32)
        if self._steps < min(steps, STEPS_AT_ONCE):
            self._steps = min(steps, STEPS_AT_ONCE)
            self._work = new_work(weights, self._steps * lanes)
            self._own = attention.new_work(weights.shape, self._steps, lanes)
        flat = np.ascontiguousarray(ids).reshape(-1)
        at = 0
        while at < steps:
            if self._slot == self._end:
                attention.move_on(segment, net, self._window, self._own)
                self._slot -= segment
            count = min(steps - at, STEPS_AT_ONCE, self._end - self._slot)
            rows = slice(at * lanes, (at + count) * lanes)
            forward(flat[rows], self._slot, lanes, net, self._window, self._work, self._own, found[rows])
            at, self._slot = at + count, self._slot + count
        return sum_clusters(found.reshape(steps, lanes, -1), net.cluster_starts)
