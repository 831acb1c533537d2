"""The token mixer ``lstm``: long short-term memory (Hochreiter and Schmidhuber 1997) with algebraic gates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmzip.jit import jit
from llmzip.network.architectures.gates import preactivation, softsign
from llmzip.network.architectures.recurrent import RecurrentLayer, RecurrentMixer, shapes_for
from llmzip.network.kernels import LINEAR_BOUND, ONE, clamped, gate, leak_of


@dataclass(frozen=True, kw_only=True)
class LstmLayer(RecurrentLayer):
    """The weights of one layer; its rows are candidate, input gate, forget gate, output gate."""

    arch = "lstm"
    token_shapes = shapes_for(4)


@jit
def cell(inward, back, bias, h, c):
    """Take one step of all lanes (Lstm 1-13): Products of 4 d outputs; `h` and `c` float32 ``[B, d]`` updated."""
    lanes, d = h.shape
    for b in range(lanes):
        for i in range(d):
            z = preactivation(inward, back, bias, b, i)
            g = preactivation(inward, back, bias, b, d + i)
            f = preactivation(inward, back, bias, b, 2 * d + i)
            o = preactivation(inward, back, bias, b, 3 * d + i)
            keep = np.float32(ONE - leak_of(f))
            kept = np.float32(keep * c[b, i])
            new = np.float32(gate(g) * softsign(z))
            c[b, i] = clamped(np.float32(kept + new), LINEAR_BOUND)
            h[b, i] = np.float32(gate(o) * softsign(c[b, i]))


class LstmMixer(RecurrentMixer):
    """The state of one layer."""

    states = 2
    cell = staticmethod(cell)
