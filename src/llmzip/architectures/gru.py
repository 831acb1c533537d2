"""The token mixer ``gru``: gated recurrent unit (Cho et al. 2014) with algebraic gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from llmzip import kernels
from llmzip.architectures.gates import bounded, gate, leak_of, softsign, sum3
from llmzip.architectures.lstm import quantise_rows
from llmzip.jit import jit
from llmzip.kernels import ONE, linear
from llmzip.weights import Matrix, OtherLayer


def _shapes(width: int) -> dict[str, tuple[int, ...]]:
    d = width
    return {"token_in": (3 * d, d), "token_back": (3 * d, d), "token_bias": (3 * d,), "token_out": (d, d)}


@dataclass(frozen=True, kw_only=True)
class GruLayer(OtherLayer):
    """Hold one layer; its rows are candidate, forget gate, reset gate."""

    arch: ClassVar[str] = "gru"
    token_shapes: ClassVar[Callable[[int], dict[str, tuple[int, ...]]]] = _shapes

    token_in: Matrix  # [3 d, d], of the input
    token_back: Matrix  # [3 d, d], of the output one step before
    token_bias: np.ndarray  # float32 [3 d]
    token_out: Matrix  # [d, d]


@jit
def cell(acc, s, scales, back, s_back, scales_back, bias, h):
    """Take one step of all lanes (Gru 1-13): `acc` and `back` int32 ``[B, 3 d]``, `h` float32 ``[B, d]`` updated."""
    lanes, d = h.shape
    for b in range(lanes):
        for i in range(d):
            j = i + d
            f = sum3(linear(acc[b, j], s[b], scales[j]), linear(back[b, j], s_back[b], scales_back[j]), bias[j])
            j += d
            r = sum3(linear(acc[b, j], s[b], scales[j]), linear(back[b, j], s_back[b], scales_back[j]), bias[j])
            past = np.float32(linear(back[b, i], s_back[b], scales_back[i]) * gate(r))
            z = softsign(sum3(linear(acc[b, i], s[b], scales[i]), past, bias[i]))
            leak = leak_of(f)
            kept = np.float32(np.float32(ONE - leak) * h[b, i])
            new = np.float32(leak * z)
            h[b, i] = bounded(np.float32(kept + new))


class GruMixer:
    """Carry the state of one layer."""

    def __init__(self, layer: GruLayer, lanes: int):
        self._layer = layer
        self._h = np.zeros((lanes, len(layer.channel_shift)), np.float32)

    def run(self, work: Any, product: Any, inverse_width: np.float32) -> None:
        """Add the mixer's output to the rows `work.x`; see :class:`llmzip.architectures.TokenMixer`."""
        layer, (lanes, d) = self._layer, self._h.shape
        x, q, s = work.x, work.q, work.s
        kernels.final_rows(x, inverse_width, q, s, work.scratch)
        product(layer.token_in, q, work.acc_in)
        back, q_back, s_back = (
            np.empty((lanes, 3 * d), np.int32),
            np.empty((lanes, d), np.int16),
            np.empty(lanes, np.float32),
        )
        quantise_rows(self._h, q_back, s_back)
        scales = layer.token_in.scale, layer.token_back.scale
        for at in range(0, len(x), lanes):
            now = slice(at, at + lanes)
            product(layer.token_back, q_back, back)
            cell(work.acc_in[now], s[now], scales[0], back, s_back, scales[1], layer.token_bias, self._h)
            quantise_rows(self._h, q_back, s_back)
            q[now], s[now] = q_back, s_back
        product(layer.token_out, q, work.acc)
        kernels.add_residual(x, work.acc, s, layer.token_out.scale)
