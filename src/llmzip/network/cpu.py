"""Exact inference: the network in integers and correctly rounded float32 steps, on the CPU.

A row's result is the same bits for every batch, segment length, matmul backend and machine (profile ``exact-2``,
specified in ``docs/FORMAT.md``). So the encoder runs whole segments of time at once and the decoder single steps.
:mod:`llmzip.network.torch_device` runs the same pseudo-code on any torch device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from llmzip.errors import HardwareError
from llmzip.network import buffers, fused, kernels, matmul
from llmzip.network.head import Prediction
from llmzip.network.matmul import Product
from llmzip.network.packed import KERNELS
from llmzip.network.weights import Matrix, Weights

NO_RECHECK = np.empty(0, np.int64)  # in Python, products recheck themselves


def require_denormals() -> None:
    """Raise HardwareError if the calling thread flushes denormals, as the program may have set."""
    if kernels.denormals_flushed(kernels.DENORMAL_PROBE):
        raise HardwareError("this program has set the CPU to flush denormal numbers (torch.set_flush_denormal)")


class ExactNetwork:
    """Weights bound to the matmul backend that is fastest here; may be shared between sessions and threads.

    `backend` forces one (tests).
    """

    segment_rows = 1024  # rows the encoder runs at once: fewer, and the threads wait for each other more often

    def __init__(self, weights: Weights, *, backend: str | None = None, rows: int = 32):
        self.weights = weights
        matrices = [m for layer in weights.layers for m in layer.matrices()] + [weights.head_cluster]
        shapes = [m.q.shape for m in matrices]
        self.backend = matmul.fitting(backend, shapes) if backend else matmul.choose(shapes, rows)
        self.fused = self.backend in KERNELS and weights.arch == "gated"
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
    """The network's state of `lanes` texts; not for two threads at a time."""

    def __init__(self, network: ExactNetwork, lanes: int, recheck: bool):
        self.network, self.lanes, self._recheck = network, lanes, recheck
        self._state = buffers.new_state(network.weights, lanes)
        self._buffers = buffers.new_buffers(network.weights, lanes)

    def run(self, ids: np.ndarray) -> Prediction:
        """Run inputs int32 ``[T, B]`` (BOS first) and return the prediction of the token that follows each."""
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
    """Run the stages as plain Python around each matrix product, for other backends and architectures."""

    def __init__(self, network: ExactNetwork, lanes: int, recheck: bool):
        super().__init__(network, lanes, recheck)

        def bound(matrix: Matrix) -> Product:
            product = network.products[id(matrix)]
            return _exact_columns(matmul.rechecked(product, matrix.q) if recheck else product, len(matrix.q))

        self._product = bound
        self._stack = fused.stack_products(network.weights, bound)

    def _forward(self, ids: np.ndarray, hidden: np.ndarray, scale: np.ndarray) -> None:
        net, state, work = self._stack, self._state, self._buffers
        kernels.embed(ids, net.embedding, net.embedding_scale, work.x)
        for i in range(len(self.network.weights.layers)):
            self._mix_tokens(i)
            _plain(fused.mix_channels)(i, net, state, work, NO_RECHECK)
        _plain(fused.run_head)(net, work, hidden, scale, NO_RECHECK)

    def _mix_tokens(self, i: int) -> None:
        _plain(fused.mix_tokens)(i, self._stack, self._state, self._buffers, NO_RECHECK)


class OtherSession(ProductSession):
    """Run another architecture: only the token mixers differ."""

    def __init__(self, network: ExactNetwork, lanes: int, recheck: bool):
        super().__init__(network, lanes, recheck)
        from llmzip.network.architectures.registry import token_mixer

        products = {id(m): self._product(m) for layer in network.weights.layers for m in layer.matrices()}
        self._multiply = lambda matrix, q, acc: products[id(matrix)](q, acc)
        others: Any = network.weights.layers
        self._mixers = [token_mixer(layer, lanes) for layer in others]

    def _mix_tokens(self, i: int) -> None:
        self._mixers[i].run(self._buffers, self._multiply, self._stack.inverse_width)


def _exact_columns(product: Product, columns: int) -> Product:
    """Return a product that also takes buffers with room for whole blocks of columns."""

    def wide(q: np.ndarray, acc: np.ndarray) -> None:
        if acc.shape[1] == columns:
            product(q, acc)
            return
        exact = np.empty((len(q), columns), np.int32)
        product(q, exact)
        acc[:, :columns] = exact

    return wide


def _plain(stage: Any) -> Callable[..., None]:
    """Return a stage of the forward pass as plain Python."""
    function: Callable[..., None] = getattr(stage, "py_func", stage)  # where the compiler is off it is plain already
    return function
