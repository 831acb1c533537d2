"""Exact inference: the network in integers and correctly rounded float32 steps, on the CPU.

Whatever the batch, the stretch, the backend and the machine, a row's result is the same bits (profile
``exact-2``, specified in ``docs/FORMAT.md``). So the encoder runs whole stretches of time at once and the
decoder single steps. :mod:`llmzip.network.torch_device` runs the same pseudo-code on any torch device.
"""

from __future__ import annotations

import numpy as np

from llmzip.errors import HardwareError
from llmzip.network import buffers, fused, kernels, matmul
from llmzip.network.head import Prediction
from llmzip.network.weights import Matrix, Weights

SEGMENT_ROWS = 1024  # rows the encoder runs at once: fewer, and the threads wait for each other more often


def require_denormals() -> None:
    """Raise HardwareError if the calling thread flushes denormals, as its program may have set."""
    if kernels.denormals_flushed(kernels.DENORMAL_PROBE):
        raise HardwareError("this program has set the CPU to flush denormal numbers (torch.set_flush_denormal)")


class ExactNetwork:
    """Bind the weights to the backend that is fastest here; share between sessions and threads.

    `backend` forces one (tests).
    """

    def __init__(self, weights: Weights, *, backend: str | None = None, rows: int = 32):
        self.weights = weights
        matrices = [m for layer in weights.layers for m in layer.matrices()] + [weights.head_cluster]
        shapes = [m.q.shape for m in matrices]
        if backend == "vnni" and not matmul.fits_quads(shapes):
            raise ValueError("this network's widths are no multiples of 4, as the vnni backend needs them")
        self.backend = backend or matmul.choose(shapes, rows)
        self.fused = self.backend in matmul.PACKERS and weights.arch == "gated"
        if self.fused:
            self.stack = fused.stack(weights, self.backend)
        else:
            bind = matmul.BINDERS[self.backend]
            self.products = {id(m): bind(m.q) for m in matrices}

    def session(self, lanes: int, *, recheck: bool = False) -> Session:
        """Return a fresh state for `lanes` texts; `recheck` recomputes about 1 % of all rows another way."""
        if self.weights.arch != "gated":
            return OtherSession(self, lanes, recheck)
        kind = FusedSession if self.fused else ProductSession
        return kind(self, lanes, recheck)


class Session:
    """Carry the state of `lanes` texts through the network: not for two threads at a time."""

    def __init__(self, network: ExactNetwork, lanes: int, recheck: bool):
        self.network, self.lanes, self._recheck = network, lanes, recheck
        self._state = buffers.new_state(network.weights, lanes)
        self._buffers = buffers.new_buffers(network.weights, lanes)

    def run(self, ids: np.ndarray) -> Prediction:
        """Feed inputs int32 ``[T, B]`` (BOS first) and return the predictions of what follows each."""
        require_denormals()
        w, rows = self.network.weights, ids.size
        if rows != len(self._buffers.x):
            self._buffers = buffers.new_buffers(w, rows)
        hidden, scale = np.empty((rows, w.width), np.int16), np.empty(rows, np.float32)
        self._forward(np.ascontiguousarray(ids).reshape(-1), hidden, scale)
        cluster_acc = self._buffers.acc_head[:, : len(w.head_cluster.q)]
        return Prediction(
            cluster_acc.reshape(*ids.shape, -1).copy(),
            hidden.reshape(*ids.shape, -1),
            scale.reshape(ids.shape),
        )

    def _forward(self, ids: np.ndarray, hidden: np.ndarray, scale: np.ndarray) -> None:
        raise NotImplementedError


class FusedSession(Session):
    """Run everything in one compiled call."""

    def __init__(self, network: ExactNetwork, lanes: int, recheck: bool):
        super().__init__(network, lanes, recheck)
        self._counts = np.zeros(3 if recheck else 0, np.int64)

    def _forward(self, ids: np.ndarray, hidden: np.ndarray, scale: np.ndarray) -> None:
        fused.forward(ids, self.network.stack, self._state, self._buffers, hidden, scale, self._counts)
        if self._recheck and self._counts[2]:
            raise HardwareError(matmul.RECHECK_FAILED)


class ProductSession(Session):
    """Return to Python for each matrix product, which torch computes."""

    def __init__(self, network: ExactNetwork, lanes: int, recheck: bool):
        super().__init__(network, lanes, recheck)
        self._products = dict(network.products)
        if recheck:
            matrices = [m for layer in network.weights.layers for m in layer.matrices()]
            for m in [*matrices, network.weights.head_cluster]:
                self._products[id(m)] = matmul.rechecked(self._products[id(m)], m.q)

    def _product(self, matrix: Matrix, q: np.ndarray, acc: np.ndarray) -> None:
        if acc.shape[1] == len(matrix.q):
            self._products[id(matrix)](q, acc)
        else:  # the buffer has room for whole blocks of columns
            exact = np.empty((len(q), len(matrix.q)), np.int32)
            self._products[id(matrix)](q, exact)
            acc[:, : exact.shape[1]] = exact

    def _forward(self, ids: np.ndarray, hidden: np.ndarray, scale: np.ndarray) -> None:
        w, state, work = self.network.weights, self._state, self._buffers
        x, q, s, inverse_width = work.x, work.q, work.s, np.float32(1.0 / w.width)
        kernels.embed(ids, w.embedding.q, w.embedding.scale, x)
        for i, layer in enumerate(w.layers):
            self._mix_tokens(i, inverse_width)
            kernels.shifted_input(x, inverse_width, layer.channel_shift, state.last_channel[i], q, s, work.scratch)
            self._product(layer.channel_up, q, work.acc_up)
            kernels.square(work.acc_up, s, layer.channel_up.scale, work.q_hidden, s, work.scratch_hidden)
            self._product(layer.channel_down, work.q_hidden, work.acc)
            kernels.add_residual(x, work.acc, s, layer.channel_down.scale)
        kernels.final_rows(x, inverse_width, hidden, scale, q, work.q_low, work.scratch)
        self._product(w.head_cluster, q, work.acc_head)
        self._product(w.head_cluster, work.q_low, work.acc_low)
        kernels.join(work.acc_head, work.acc_low)

    def _mix_tokens(self, i: int, inverse_width: np.float32) -> None:
        """Run the token mixer of layer `i` (Step 3-5)."""
        layer, state, work = self.network.weights.layers[i], self._state, self._buffers
        x, q, s = work.x, work.q, work.s
        kernels.shifted_input(x, inverse_width, layer.token_shift, state.last_token[i], q, s, work.scratch)
        self._product(layer.token_in, q, work.acc_in)
        kernels.recur(work.acc_in, s, layer.token_in.scale, layer.forget_bias, state.h[i], q, s, work.scratch)
        self._product(layer.token_out, q, work.acc)
        kernels.add_residual(x, work.acc, s, layer.token_out.scale)


class OtherSession(ProductSession):
    """Run another architecture: only the token mixers differ."""

    def __init__(self, network: ExactNetwork, lanes: int, recheck: bool):
        super().__init__(network, lanes, recheck)
        from llmzip.network.architectures.registry import token_mixer

        self._mixers = [token_mixer(layer, lanes) for layer in network.weights.layers]

    def _mix_tokens(self, i: int, inverse_width: np.float32) -> None:
        self._mixers[i].run(self._buffers, self._product, inverse_width)
