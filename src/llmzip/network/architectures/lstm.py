"""The token mixer ``lstm``: long short-term memory (Hochreiter and Schmidhuber 1997) with algebraic gates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmzip.jit import jit
from llmzip.network.architectures.gates import bounded, gate, leak_of, softsign, sum3
from llmzip.network.architectures.recurrent import RecurrentLayer, RecurrentMixer, shapes_for
from llmzip.network.kernels import ONE, linear


@dataclass(frozen=True, kw_only=True)
class LstmLayer(RecurrentLayer):
    """The weights of one layer; its rows are candidate, input gate, forget gate, output gate."""

    arch = "lstm"
    token_shapes = shapes_for(4)


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


class LstmMixer(RecurrentMixer):
    """The state of one layer."""

    states = 2
    cell = staticmethod(cell)
