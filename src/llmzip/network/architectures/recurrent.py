"""What the token mixers ``lstm`` and ``gru`` share: products with the input and with the output one step before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from llmzip.jit import jit
from llmzip.network import kernels
from llmzip.network.kernels import Products, quantise_row
from llmzip.network.weights import Matrix, OtherLayer


@jit
def quantise_rows(u, q, s):
    """Quantise the rows of `u` ``[R, d]``."""
    for row in range(u.shape[0]):
        s[row] = quantise_row(u[row], q[row])


def shapes_for(gates: int) -> Callable[[int], dict[str, tuple[int, ...]]]:
    """Return the function that gives the shapes of a layer with `gates` gates for a width."""

    def shapes(width: int) -> dict[str, tuple[int, ...]]:
        d, n = width, gates * width
        return {"token_in": (n, d), "token_back": (n, d), "token_bias": (n,), "token_out": (d, d)}

    return shapes


@dataclass(frozen=True, kw_only=True)
class RecurrentLayer(OtherLayer):
    """The weights of one layer; a subclass says what the `n` rows stand for, `d` each."""

    token_in: Matrix  # [n, d], of the input
    token_back: Matrix  # [n, d], of the output one step before
    token_bias: np.ndarray  # float32 [n]
    token_out: Matrix  # [d, d]


class RecurrentMixer:
    """The state of one layer: `states` arrays float32 ``[B, d]``, of which the first is the output.

    `cell` is a kernel that takes one step of all lanes.
    """

    states: ClassVar[int]
    cell: ClassVar[Callable[..., None]]

    def __init__(self, layer: RecurrentLayer, lanes: int):
        self._layer = layer
        self._states = tuple(np.zeros((lanes, len(layer.channel_shift)), np.float32) for _ in range(self.states))

    def run(self, work: Any, product: Any, inverse_width: np.float32) -> None:
        """Add the mixer's output to the rows `work.x`; see :class:`.registry.TokenMixer`."""
        layer, h, n = self._layer, self._states[0], len(self._layer.token_bias)
        x, q, s = work.x, work.q, work.s
        kernels.normalised_input(x, inverse_width, q, s, work.scratch)
        acc, back = np.empty((len(x), n), np.int32), np.empty((len(h), n), np.int32)
        product(layer.token_in, q, acc)
        q_back, s_back = np.empty(h.shape, np.int16), np.empty(len(h), np.float32)
        quantise_rows(h, q_back, s_back)
        returned = Products(back, s_back, layer.token_back.scale)
        for at in range(0, len(x), len(h)):
            now = slice(at, at + len(h))
            product(layer.token_back, q_back, back)
            inward = Products(acc[now], s[now], layer.token_in.scale)
            self.cell(inward, returned, layer.token_bias, *self._states)
            quantise_rows(h, q_back, s_back)
            q[now], s[now] = q_back, s_back
        product(layer.token_out, q, work.acc)
        kernels.add_residual(x, work.acc, s, layer.token_out.scale)
