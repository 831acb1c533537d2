"""The token mixer ``lstm``: long short-term memory (Hochreiter and Schmidhuber 1997) with algebraic gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from llmzip import kernels
from llmzip.architectures.gates import bounded, gate, leak_of, softsign, sum3
from llmzip.jit import jit
from llmzip.kernels import ONE, linear, quantise_row
from llmzip.weights import Matrix, OtherLayer


def _shapes(width: int) -> dict[str, tuple[int, ...]]:
    d = width
    return {"token_in": (4 * d, d), "token_back": (4 * d, d), "token_bias": (4 * d,), "token_out": (d, d)}


@dataclass(frozen=True, kw_only=True)
class LstmLayer(OtherLayer):
    """Hold one layer; its rows are candidate, input gate, forget gate, output gate."""

    arch: ClassVar[str] = "lstm"
    token_shapes: ClassVar[Callable[[int], dict[str, tuple[int, ...]]]] = _shapes

    token_in: Matrix  # [4 d, d], of the input
    token_back: Matrix  # [4 d, d], of the output one step before
    token_bias: np.ndarray  # float32 [4 d]
    token_out: Matrix  # [d, d]


@jit
def quantise_rows(u, q, s):
    """Quantise the rows of `u` ``[R, d]``."""
    for row in range(u.shape[0]):
        s[row] = quantise_row(u[row], q[row])


@jit
def cell(acc, s, scales, back, s_back, scales_back, bias, h, c):
    """Take one step of all lanes (Lstm 1-13): `acc` and `back` int32 ``[B, 4 d]``, `h` and `c` ``[B, d]`` updated."""
    lanes, d = h.shape
    for b in range(lanes):
        for i in range(d):
            j = i
            z = sum3(linear(acc[b, j], s[b], scales[j]), linear(back[b, j], s_back[b], scales_back[j]), bias[j])
            j += d
            g = sum3(linear(acc[b, j], s[b], scales[j]), linear(back[b, j], s_back[b], scales_back[j]), bias[j])
            j += d
            f = sum3(linear(acc[b, j], s[b], scales[j]), linear(back[b, j], s_back[b], scales_back[j]), bias[j])
            j += d
            o = sum3(linear(acc[b, j], s[b], scales[j]), linear(back[b, j], s_back[b], scales_back[j]), bias[j])
            keep = np.float32(ONE - leak_of(f))
            kept = np.float32(keep * c[b, i])
            new = np.float32(gate(g) * softsign(z))
            c[b, i] = bounded(np.float32(kept + new))
            h[b, i] = np.float32(gate(o) * softsign(c[b, i]))


class LstmMixer:
    """Carry the state of one layer."""

    def __init__(self, layer: LstmLayer, lanes: int):
        d = len(layer.channel_shift)
        self._layer = layer
        self._h, self._c = np.zeros((lanes, d), np.float32), np.zeros((lanes, d), np.float32)

    def run(self, work: Any, product: Any, inverse_width: np.float32) -> None:
        """Add the mixer's output to the rows `work.x`; see :class:`llmzip.architectures.TokenMixer`."""
        layer, (lanes, d) = self._layer, self._h.shape
        x, q, s = work.x, work.q, work.s
        kernels.final_rows(x, inverse_width, q, s, work.scratch)
        acc = np.empty((len(x), 4 * d), np.int32)
        product(layer.token_in, q, acc)
        back, q_back, s_back = (
            np.empty((lanes, 4 * d), np.int32),
            np.empty((lanes, d), np.int16),
            np.empty(lanes, np.float32),
        )
        quantise_rows(self._h, q_back, s_back)
        scales = layer.token_in.scale, layer.token_back.scale
        for at in range(0, len(x), lanes):
            now = slice(at, at + lanes)
            product(layer.token_back, q_back, back)
            cell(acc[now], s[now], scales[0], back, s_back, scales[1], layer.token_bias, self._h, self._c)
            quantise_rows(self._h, q_back, s_back)
            q[now], s[now] = q_back, s_back
        product(layer.token_out, q, work.acc)
        kernels.add_residual(x, work.acc, s, layer.token_out.scale)
