"""The token mixers of other architectures, in float, for training: counterparts of ``network/architectures``.

A mixer maps normalised rows ``[T, B, d]`` and its state, tensors ``[B, ...]``, to its output and the state after;
`keep` ``[T, B, 1]`` is 0 where a text starts. Back-propagation ends at the state. Heads, gates and clamps are those of
the exact versions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from llmzip.network.architectures.transformer import VALUE_BOUND, WINDOW, heads_for
from llmzip.training.model import LanguageModel, ModelConfig, State, TokenMixer, algebraic_sigmoid, forget_biases


def softsign(x: Tensor) -> Tensor:
    """Return ``x / (1 + |x|)``."""
    return x / (1 + x.abs())


def leak_of(x: Tensor) -> Tensor:
    """Return the squared complement of the algebraic sigmoid."""
    return (1 - algebraic_sigmoid(x)).square()


class RecurrentMixer(nn.Module):
    """What lstm and gru have in common: products with the input and with the output one step before."""

    gates: int
    forget: int  # which of them forgets
    states: int

    def __init__(self, config: ModelConfig):
        super().__init__()
        d = config.width
        self.w_in = nn.Linear(d, self.gates * d, bias=False)
        self.w_back = nn.Linear(d, self.gates * d, bias=False)
        self.bias = nn.Parameter(torch.zeros(self.gates * d))
        self.w_out = nn.Linear(d, d, bias=False)
        for matrix in (self.w_in, self.w_back):
            nn.init.normal_(matrix.weight, std=0.7 / math.sqrt(d))
        nn.init.zeros_(self.w_out.weight)
        with torch.no_grad():
            self.bias[self.forget * d : (self.forget + 1) * d] = forget_biases(config)

    def initial(self, zero: Tensor) -> State:
        """Return the state before a text, from zeros ``[B, d]``."""
        return (zero,) * self.states

    def forward(self, n: Tensor, state: State, keep: Tensor) -> tuple[Tensor, State]:
        """Return the output and the next state."""
        fresh, rows = self.w_in(n).float(), []
        for t in range(len(n)):
            state = tuple(s * keep[t] for s in state)
            state = self.cell(
                fresh[t].chunk(self.gates, -1), self.w_back(state[0]).float().chunk(self.gates, -1), state
            )
            rows.append(state[0])
        return self.w_out(torch.stack(rows)).float(), tuple(s.detach() for s in state)

    def cell(self, fresh: State, back: State, state: State) -> State:
        """Return the state after one step; its first tensor is the output."""
        raise NotImplementedError


class LstmMixer(RecurrentMixer):
    """Long short-term memory."""

    gates, forget, states = 4, 2, 2

    def cell(self, fresh: State, back: State, state: State) -> State:
        """Return output and cell."""
        z, g, f, o = (a + b + c for a, b, c in zip(fresh, back, self.bias.chunk(self.gates), strict=True))
        c = (1 - leak_of(f)) * state[1] + algebraic_sigmoid(g) * softsign(z)
        return algebraic_sigmoid(o) * softsign(c), c


class GruMixer(RecurrentMixer):
    """Gated recurrent unit."""

    gates, forget, states = 3, 1, 1

    def cell(self, fresh: State, back: State, state: State) -> State:
        """Return the output."""
        bias = self.bias.chunk(self.gates)
        leak = leak_of(fresh[1] + back[1] + bias[1])
        reset = algebraic_sigmoid(fresh[2] + back[2] + bias[2])
        z = softsign(fresh[0] + back[0] * reset + bias[0])
        return ((1 - leak) * state[0] + leak * z,)


class TransformerMixer(nn.Module):
    """Causal attention over the last tokens of the text; the state is the window: keys, values, which are valid."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        d = config.width
        self.heads = heads_for(d)
        self.w_in = nn.Linear(d, 3 * d, bias=False)
        self.w_out = nn.Linear(d, d, bias=False)
        # Heads begin by looking back over different distances: half of the weight is lost within 2 to 128 tokens.
        half_lives = torch.logspace(1, math.log2(WINDOW), self.heads, base=2)
        # One row of numbers: it is no matrix to the optimisers.
        self.distance = nn.Parameter((-math.log(2) * torch.arange(WINDOW) / half_lives[:, None]).flatten())
        nn.init.normal_(self.w_in.weight, std=0.7 / math.sqrt(d))
        nn.init.zeros_(self.w_out.weight)

    def initial(self, zero: Tensor) -> State:
        """Return the state before a text, from zeros ``[B, d]``."""
        window = zero[:, None].expand(-1, WINDOW, -1)
        return window, window, zero[:, :1].expand(-1, WINDOW)

    def forward(self, n: Tensor, state: State, keep: Tensor) -> tuple[Tensor, State]:
        """Return the output and the next state."""
        steps, lanes, d = n.shape
        each = d // self.heads
        q, k, v = self.w_in(n).float().transpose(0, 1).chunk(3, -1)  # [B, T, d]
        keys = torch.cat([state[0], k], 1)
        values = torch.cat([state[1], v.clamp(-float(VALUE_BOUND), float(VALUE_BOUND))], 1)
        # Texts are numbered from the one that goes on; what the window holds of others has number -1.
        text = torch.cumsum(1 - keep[..., 0], 0).t()  # [B, T]
        texts = torch.cat([state[2] - 1, text], 1)
        back = torch.arange(steps, device=n.device)[:, None] + WINDOW - torch.arange(WINDOW + steps, device=n.device)
        visible = ((back >= 0) & (back < WINDOW)) & (texts[:, None] == text[..., None])  # [B, T, WINDOW + T]
        bias = self.distance.view(self.heads, WINDOW)[:, back.clamp(0, WINDOW - 1)]  # [H, T, WINDOW + T]
        bias = torch.where(visible[:, None], bias, float("-inf"))

        def split(rows: Tensor) -> Tensor:
            return rows.reshape(lanes, -1, self.heads, each).transpose(1, 2)

        mean = nn.functional.scaled_dot_product_attention(split(q), split(keys), split(values), attn_mask=bias)
        y = self.w_out(mean.permute(2, 0, 1, 3).reshape(steps, lanes, d)).float()
        valid = (texts[:, -WINDOW:] == text[:, -1:]).float()
        return y, (keys[:, -WINDOW:].detach(), values[:, -WINDOW:].detach(), valid)


MIXERS = {"gated": TokenMixer, "lstm": LstmMixer, "gru": GruMixer, "transformer": TransformerMixer}


def new_model(config: ModelConfig, cluster_starts: Tensor) -> LanguageModel:
    """Return an untrained network of the configured architecture."""
    return LanguageModel(config, cluster_starts, MIXERS[config.arch])
