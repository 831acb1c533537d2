"""The token mixer ``gru``: gated recurrent unit (Cho et al. 2014) with algebraic gates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmzip.jit import jit
from llmzip.network.architectures.gates import bounded, gate, leak_of, softsign, sum3
from llmzip.network.architectures.recurrent import RecurrentLayer, RecurrentMixer, shapes_for
from llmzip.network.kernels import ONE, linear


@dataclass(frozen=True, kw_only=True)
class GruLayer(RecurrentLayer):
    """The weights of one layer; its rows are candidate, forget gate, reset gate."""

    arch = "gru"
    token_shapes = shapes_for(3)


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


class GruMixer(RecurrentMixer):
    """The state of one layer."""

    states = 1
    cell = staticmethod(cell)
