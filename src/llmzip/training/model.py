"""The language model in plain PyTorch, for training.

Tensors are time-major: ``[T, B, d]``, T steps of B independent lanes. The network is a gated linear
recurrence (Hierarchically Gated Recurrent Network, Qin et al. 2023, with an algebraic gate), a squared-ReLU
MLP (Primer, So et al. 2021), pre-normalisation without gain, token shift (RWKV, Peng et al. 2023) and a
two-level softmax whose classes are subtrees of the vocabulary's decision tree (Goodman 2001).

Every nonlinearity is algebraic, because the archive is coded by :mod:`llmzip.network.cpu`, which runs the same
weights in integers and correctly rounded operations: nothing here may need an approximation there. Change
both together, with the pseudo-code in ``docs/FORMAT.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from llmzip.training.fusion import fusible

State = tuple[Tensor, ...]  # of one layer, each [B, ...]


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a network."""

    vocab: int  # tokens; id `vocab` is BOS, the input before the first token of a lane
    width: int = 256  # channels of the residual stream and of the recurrence
    layers: int = 6
    hidden: int = 1024  # channels inside the MLP
    clusters: int = 256  # classes of the first softmax; 1 = flat head
    longest_memory: int = 600  # tokens; initial time constants are spread from 2 to this
    arch: str = "gated"  # the token mixer's kind

    @property
    def body_multiply_adds(self) -> int:
        """Return the multiply-adds with weights per token outside the head."""
        token_mixer = {"gated": 4, "lstm": 9, "gru": 7, "transformer": 4}[self.arch]
        return self.layers * (token_mixer * self.width**2 + 2 * self.width * self.hidden)


@cache
def fused_recurrence(device: torch.device) -> ModuleType | None:
    """Return the module of the kernels that compute the recurrence on a device, if they work there."""
    if device.type != "cuda":
        return None
    try:
        from llmzip.training import recurrence_kernel

        zeros = torch.zeros(1, 1, 1, device=device)
        recurrence_kernel.forward(zeros, zeros, zeros[0])
    except Exception:  # no Triton, no C compiler for it, a GPU it does not know: the loop works without
        return None
    return recurrence_kernel


class Recurrence(torch.autograd.Function):
    """``h[t] = f[t] * h[t-1] + u[t]`` with an exact backward pass: by a loop over time, fused on a GPU."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, u: Tensor, h0: Tensor) -> Tensor:
        """Return h ``[T, B, d]`` for f and u of that shape and h0 ``[B, d]``."""
        if kernel := fused_recurrence(f.device):
            h: Tensor = kernel.forward(f, u, h0)
        else:
            h = torch.empty_like(u)
            previous = h0
            for t in range(f.shape[0]):
                torch.addcmul(u[t], f[t], previous, out=h[t])
                previous = h[t]
        ctx.save_for_backward(f, h, h0)
        return h

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of f and u; none flows into h0, where back-propagation is truncated."""
        f, h, h0 = ctx.saved_tensors
        if kernel := fused_recurrence(f.device):
            return *kernel.backward(f, h, h0, grad_h), None
        grad_u = grad_h.clone()
        for t in range(f.shape[0] - 2, -1, -1):
            grad_u[t].addcmul_(f[t + 1], grad_u[t + 1])
        grad_f = grad_u * torch.cat([h0[None], h[:-1]])
        return grad_f, grad_u, None


def product_type(x: Tensor) -> torch.dtype:
    """Return the type in which matrices are to be multiplied by `x`: autocast's where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class SquaredReluMLP(torch.autograd.Function):
    """``relu(x Wup^T)^2 Wdown^T`` in one function.

    The derivative of relu's square, twice relu, is zero where relu cuts off: backwards this passes once over the
    hidden rows, the largest tensors of a step, where autograd would three times.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
        """Return rows ``[..., d]`` for x ``[..., d]``, w_up ``[hidden, d]`` and w_down ``[d, hidden]``."""
        dtype = product_type(x)
        rows, up, down = x.reshape(-1, x.shape[-1]).to(dtype), w_up.to(dtype), w_down.to(dtype)
        a = torch.mm(rows, up.t()).relu_()
        s = a.square()
        ctx.save_for_backward(rows, up, down, a, s)
        return torch.mm(s, down.t()).view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients; those of the weights are summed in the type of the products."""
        rows, up, down, a, s = ctx.saved_tensors
        grad_y = grad.reshape(-1, grad.shape[-1])
        half = torch.mm(grad_y, down).mul_(a)  # half the gradient of the products with w_up
        grad_x = torch.mm(half, up).mul_(2).view(grad.shape)
        return grad_x, torch.mm(half.t(), rows).mul_(2), torch.mm(grad_y.t(), s)


def algebraic_sigmoid(x: Tensor) -> Tensor:
    """Return ``0.5 + 0.5 * x / (1 + |x|)``."""
    return 0.5 + 0.5 * x / (1 + x.abs())


@fusible
def normalise(x: Tensor) -> Tensor:
    """Divide each row by its root mean square."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-8)


@fusible
def with_previous(n: Tensor, last: Tensor, shift: Tensor, keep: Tensor) -> Tensor:
    """Add a share of the previous step's rows; none where `keep` is zero (the step starts a text)."""
    return n + shift * (torch.cat([last[None], n[:-1]]) * keep)


@fusible
def gates(zfg: Tensor, forget_bias: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the state is multiplied by, what is added to it and what its output is multiplied by."""
    z, f, g = zfg.float().chunk(3, -1)
    leak = (1 - algebraic_sigmoid(f + forget_bias)).square()
    return (1 - leak) * keep, leak * z, g * algebraic_sigmoid(g)


def forget_biases(config: ModelConfig) -> Tensor:
    """Return biases ``[d]`` that make the gated units forget over time constants from 2 tokens to the longest memory.

    The leak 1 - f = (1 - asig(b))^2 equals 1 / tau at b = sqrt(tau) / 2 - 1.
    """
    tau = torch.logspace(math.log10(2), math.log10(config.longest_memory), config.width)
    return tau.sqrt() / 2 - 1


class TokenMixer(nn.Module):
    """The gated recurrence along the text: ``[T, B, d] -> [T, B, d]``, state `(h, last n)`, each ``[B, d]``."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        d = config.width
        self.w_in = nn.Linear(d, 3 * d, bias=False)  # candidate z, forget gate f, output gate g
        self.w_out = nn.Linear(d, d, bias=False)
        self.shift = nn.Parameter(torch.full((d,), 0.3))
        self.forget_bias = nn.Parameter(forget_biases(config))
        nn.init.normal_(self.w_in.weight, std=0.7 / math.sqrt(d))
        nn.init.zeros_(self.w_out.weight)

    def initial(self, zero: Tensor) -> tuple[Tensor, ...]:
        """Return the state before a text, from zeros ``[B, d]``."""
        return zero, zero

    def forward(self, n: Tensor, state: tuple[Tensor, ...], keep: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the output and the next state; `keep` ``[T, B, 1]`` is 0 where a text starts, else 1."""
        h0, last = state
        f, u, g = gates(self.w_in(with_previous(n, last, self.shift, keep)), self.forget_bias, keep)
        h = Recurrence.apply(f, u, h0)
        y = self.w_out(h * g)
        return y.float(), (h[-1].detach(), n[-1].detach())


class ChannelMixer(nn.Module):
    """The squared-ReLU MLP on each position: ``[T, B, d] -> [T, B, d]``, state = last n ``[B, d]``."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        d = config.width
        self.w_up = nn.Linear(d, config.hidden, bias=False)
        self.w_down = nn.Linear(config.hidden, d, bias=False)
        self.shift = nn.Parameter(torch.full((d,), 0.3))
        nn.init.normal_(self.w_up.weight, std=0.7 / math.sqrt(d))
        nn.init.zeros_(self.w_down.weight)

    def forward(self, n: Tensor, last: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and the next state; `keep` is as for :class:`TokenMixer`."""
        x = with_previous(n, last, self.shift, keep)
        return SquaredReluMLP.apply(x, self.w_up.weight, self.w_down.weight).float(), n[-1].detach()


class LanguageModel(nn.Module):
    """The network from token ids to the hidden rows from which the two-level head predicts the next token.

    `cluster_starts` (int, ``[clusters]``, rising from 0) cuts the sorted vocabulary into the classes of the
    head. `token_mixer` is the class that goes with the architecture.
    """

    def __init__(self, config: ModelConfig, cluster_starts: Tensor, token_mixer: type[nn.Module] = TokenMixer):
        super().__init__()
        d = config.width
        self.config = config
        self.embedding = nn.Embedding(config.vocab + 1, d)
        self.token_mixers = nn.ModuleList(token_mixer(config) for _ in range(config.layers))
        self.channel_mixers = nn.ModuleList(ChannelMixer(config) for _ in range(config.layers))
        self.head_cluster = nn.Parameter(torch.randn(config.clusters, d) * 0.02)
        self.head_token = nn.Parameter(torch.randn(config.vocab, d) * 0.02)
        self.register_buffer("cluster_starts", torch.as_tensor(cluster_starts, dtype=torch.int64))
        nn.init.normal_(self.embedding.weight, std=1.0)

    @property
    def bos(self) -> int:
        """Return the id that starts a text."""
        return self.config.vocab

    def initial_state(self, lanes: int) -> list[State]:
        """Return the state before a text: zeros; what the text starts from is BOS's embedding."""
        zero = self.embedding.weight.new_zeros(lanes, self.config.width)
        mixers: Any = self.token_mixers
        return [(*mixer.initial(zero), zero) for mixer in mixers]

    def forward(self, ids: Tensor, state: list[State]) -> tuple[Tensor, list[State]]:
        """Return hidden rows float32 ``[T, B, d]`` and the state after; BOS in `ids` resets its lane."""
        keep = (ids != self.bos).to(torch.float32)[..., None]
        x = self.embedding(ids)
        after = []
        layers = zip(self.token_mixers, self.channel_mixers, state, strict=True)
        for token_mixer, channel_mixer, (*token_state, last) in layers:
            y, token_state = token_mixer(normalise(x), tuple(token_state), keep)
            x = x + y
            y, last = channel_mixer(normalise(x), last, keep)
            x = x + y
            after.append((*token_state, last))
        return normalise(x), after
