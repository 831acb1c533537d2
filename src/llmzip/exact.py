"""Exact inference: the network in integers and correctly rounded float32 steps, on the CPU.

Whatever the batch, the stretch, the carrier and the machine, a row's result is the same bits (profile ``exact-1``,
specified in ``docs/FORMAT.md``). So the encoder runs whole stretches of time at once and the decoder single steps.
:mod:`llmzip.exact_torch` runs the same pseudo-code on any torch device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmzip import carriers, kernels
from llmzip.weights import LayerWeights, Matrix, Weights

STRETCH_ROWS = 256  # rows the encoder runs at once: more would push the products out of the CPU's caches


@dataclass
class Prediction:
    """Hold what the coder needs of ``T`` steps of ``B`` lanes, rows in time order."""

    cluster_acc: np.ndarray  # int32 [T, B, clusters], products of the head's first level
    hidden: np.ndarray  # int16 [T, B, d], quantised final rows
    scale: np.ndarray  # float32 [T, B], their scales


class ExactNetwork:
    """Bind the weights to the carrier that is fastest here; share between sessions and threads.

    `carrier` forces one (tests); `recheck` makes every product recompute about 1 % of its rows another way.
    """

    def __init__(self, weights: Weights, *, carrier: str | None = None, recheck: bool = False, rows: int = 32):
        self.weights = weights
        matrices = [m for layer in weights.layers for m in layer.matrices()] + [weights.head_cluster]
        name = carrier or carriers.choose([m.q.shape for m in matrices], rows)
        self.carrier = name
        bind = carriers.BINDERS[name]
        self.products = {
            id(m): carriers.rechecked(bind(m.q), m.q) if recheck else bind(m.q) for m in matrices
        }

    def session(self, lanes: int) -> Session:
        """Return a fresh state for `lanes` texts."""
        return Session(self, lanes)


class Session:
    """Carry the state of `lanes` texts through the network: not for two threads at a time."""

    def __init__(self, network: ExactNetwork, lanes: int):
        d, hidden = network.weights.width, network.weights.hidden
        self.network, self.lanes = network, lanes
        layers = len(network.weights.layers)
        self._h = np.zeros((layers, lanes, d), np.float32)
        self._last_token = np.zeros((layers, lanes, d), np.float32)
        self._last_channel = np.zeros((layers, lanes, d), np.float32)
        self._inverse_width = np.float32(1.0 / d)
        self._scratch = np.empty((2, d), np.float32)
        self._scratch_hidden = np.empty(hidden, np.float32)
        self._reserve(lanes)

    def _reserve(self, rows: int) -> None:
        w = self.network.weights
        self._rows = rows
        self._x = np.empty((rows, w.width), np.float32)
        self._q = np.empty((rows, w.width), np.int16)
        self._q_hidden = np.empty((rows, w.hidden), np.int16)
        self._s = np.empty(rows, np.float32)
        self._acc_in = np.empty((rows, 3 * w.width), np.int32)
        self._acc_up = np.empty((rows, w.hidden), np.int32)
        self._acc = np.empty((rows, w.width), np.int32)

    def _product(self, matrix: Matrix, q: np.ndarray, acc: np.ndarray) -> None:
        self.network.products[id(matrix)](q, acc)

    def run(self, ids: np.ndarray) -> Prediction:
        """Feed inputs int32 ``[T, B]`` (BEGIN first) and return the predictions of what follows each."""
        steps = len(ids)
        rows = steps * self.lanes
        if rows != self._rows:
            self._reserve(rows)
        w, x, q, s = self.network.weights, self._x, self._q, self._s
        scratch = self._scratch
        kernels.embed(ids.reshape(-1), w.embedding.q, w.embedding.scale, x)
        for i, layer in enumerate(w.layers):
            kernels.shifted_input(x, self._inverse_width, layer.token_shift, self._last_token[i], q, s, scratch)
            self._mix_tokens(layer, self._h[i], q, s, scratch)
            kernels.shifted_input(x, self._inverse_width, layer.channel_shift, self._last_channel[i], q, s, scratch)
            self._mix_channels(layer, q, s)
        hidden, scale = np.empty((rows, w.width), np.int16), np.empty(rows, np.float32)
        kernels.final_rows(x, self._inverse_width, hidden, scale, scratch)
        cluster_acc = np.empty((rows, len(w.head_cluster.q)), np.int32)
        self._product(w.head_cluster, hidden, cluster_acc)
        shape = (steps, self.lanes)
        return Prediction(
            cluster_acc.reshape(*shape, -1), hidden.reshape(*shape, -1), scale.reshape(shape)
        )

    def _mix_tokens(self, layer: LayerWeights, h: np.ndarray, q: np.ndarray, s: np.ndarray, scratch: np.ndarray):
        self._product(layer.token_in, q, self._acc_in)
        kernels.recur(self._acc_in, s, layer.token_in.scale, layer.forget_bias, h, q, s, scratch)
        self._product(layer.token_out, q, self._acc)
        kernels.add_residual(self._x, self._acc, s, layer.token_out.scale)

    def _mix_channels(self, layer: LayerWeights, q: np.ndarray, s: np.ndarray):
        self._product(layer.channel_up, q, self._acc_up)
        kernels.square(self._acc_up, s, layer.channel_up.scale, self._q_hidden, s, self._scratch_hidden)
        self._product(layer.channel_down, self._q_hidden, self._acc)
        kernels.add_residual(self._x, self._acc, s, layer.channel_down.scale)
