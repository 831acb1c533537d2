"""The token mixer ``gru``: gated recurrent unit (Cho et al. 2014) with algebraic gates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmzip.jit import jit
from llmzip.network.architectures.gates import output, preactivation, softsign, sum3
from llmzip.network.architectures.recurrent import RecurrentLayer, RecurrentMixer, shapes_for
from llmzip.network.kernels import LINEAR_BOUND, ONE, clamped, gate, leak_of


@dataclass(frozen=True, kw_only=True)
class GruLayer(RecurrentLayer):
    """The weights of one layer; its rows are candidate, forget gate, reset gate."""

    arch = "gru"
    token_shapes = shapes_for(3)


@jit
def cell(inward, back, bias, h):
    """Take one step of all lanes (Gru 1-13): Products of 3 d outputs; `h` float32 ``[B, d]`` updated."""
    lanes, d = h.shape
    for b in range(lanes):
        for i in range(d):
            f = preactivation(inward, back, bias, b, d + i)
            r = preactivation(inward, back, bias, b, 2 * d + i)
            past = np.float32(output(back, b, i) * gate(r))
            z = softsign(sum3(output(inward, b, i), past, bias[i]))
            leak = leak_of(f)
            kept = np.float32(np.float32(ONE - leak) * h[b, i])
            new = np.float32(leak * z)
            h[b, i] = clamped(np.float32(kept + new), LINEAR_BOUND)


class GruMixer(RecurrentMixer):
    """The state of one layer."""

    states = 1
    cell = staticmethod(cell)
