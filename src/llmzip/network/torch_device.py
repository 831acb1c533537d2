"""Exact inference on any torch device, CUDA included.

This is the pseudo-code of ``docs/FORMAT.md`` with the operations of :mod:`llmzip.network.torch_ops` only. Slower on
the CPU than :mod:`llmzip.network.cpu`, which fuses the same steps; the tests hold the two against each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmzip.errors import HardwareError
from llmzip.network import kernels
from llmzip.network.cpu import require_denormals
from llmzip.network.head import Prediction
from llmzip.network.kernels import FINE, FINE_BITS
from llmzip.network.matmul import K_BLOCK
from llmzip.network.torch_ops import (
    absmax,
    add,
    clamp,
    constant,
    divide,
    multiply,
    round_to_int,
    square_root,
    subtract,
    to_float,
)
from llmzip.network.weights import Matrix, Weights

SMALLEST = float(kernels.SMALLEST)
NORM_PEAK = float(kernels.NORM_PEAK)
PEAK = float(kernels.PEAK)
FINE_PEAK = float(kernels.FINE_PEAK)
LINEAR_BOUND = float(kernels.LINEAR_BOUND)
RESIDUAL_BOUND = float(kernels.RESIDUAL_BOUND)


class Product:
    """Multiply exactly: a float32 product carrying integers, over blocks of K whose sums stay below 2^24."""

    def __init__(self, matrix: Matrix, device: torch.device, block: int = K_BLOCK):
        self.block = block
        weight = torch.from_numpy(matrix.q).to(device, torch.float32).t().contiguous()
        self.blocks = weight.split(block)
        self.scale = torch.from_numpy(matrix.scale).to(device)

    def __call__(self, q: Tensor) -> Tensor:
        """Return int32 sums for rows of whole numbers."""
        parts = zip(q.to(torch.float32).split(self.block, -1), self.blocks, strict=True)
        return torch.stack([(a @ b).to(torch.int32) for a, b in parts]).sum(0, dtype=torch.int32)

    def linear(self, q: Tensor, s: Tensor) -> Tensor:
        """Return the product in float32 (Linear 1-4); `s` ``[..., 1]``."""
        return multiply(multiply(to_float(self(q)), s), self.scale)


def require_exact_products() -> None:
    """Raise HardwareError if torch's products are not in full precision, as the program may have set."""
    if torch.get_float32_matmul_precision() != "highest" or torch.backends.cuda.matmul.allow_tf32:
        raise HardwareError(
            "exact inference needs float32 products in full precision, and TF32 is on "
            "(call torch.set_float32_matmul_precision('highest'))"
        )


class TorchNetwork:
    """Weights bound to a torch device."""

    segment_rows = 1024

    def __init__(self, weights: Weights, device: str):
        if weights.arch != "gated":
            raise HardwareError(f"models of the architecture {weights.arch} run on the CPU only (use device='cpu')")
        self.weights, self.device = weights, torch.device(device)
        require_exact_products()
        self.embedding = torch.from_numpy(weights.embedding.q).to(self.device)
        self.embedding_scale = torch.from_numpy(weights.embedding.scale).to(self.device)
        self.layers = []
        gated: Any = weights.layers
        for layer in gated:
            products = [Product(m, self.device) for m in layer.matrices()]
            vectors = [layer.token_shift, layer.forget_bias, layer.channel_shift]
            self.layers.append((products, [torch.from_numpy(v).to(self.device) for v in vectors]))
        self.head = Product(weights.head_cluster, self.device)

    def session(self, lanes: int, *, recheck: bool = False) -> TorchSession:  # noqa: ARG002
        """Return a fresh state for `lanes` texts; other devices' products are not recomputed."""
        return TorchSession(self, lanes)


def quantise(u: Tensor, peak: float = PEAK) -> tuple[Tensor, Tensor]:
    """Return int32 rows within +-peak and their scales ``[..., 1]`` (Quantise 1-6)."""
    m = torch.clamp(absmax(u), min=SMALLEST)
    r = divide(constant(peak, m), m)
    return round_to_int(multiply(u, r)), multiply(m, constant(1.0 / peak, m))


def normalise(x: Tensor) -> Tensor:
    """Return rows divided by their root mean square (Normalise 1-11)."""
    m = torch.clamp(absmax(x), min=SMALLEST)
    r = divide(constant(NORM_PEAK, m), m)
    k = round_to_int(multiply(x, r)).to(torch.int64)
    total = torch.clamp((k * k).sum(-1, keepdim=True), min=1)
    a = square_root(multiply(to_float(total), constant(1.0 / x.shape[-1], m)))
    return multiply(x, divide(r, a))


def half_ratio(x: Tensor) -> Tensor:
    """Return half of x / (1 + |x|), the odd part of the algebraic sigmoid."""
    return multiply(constant(0.5, x), divide(x, add(x.abs(), constant(1.0, x))))


class TorchSession:
    """The state of `lanes` texts in a :class:`TorchNetwork`."""

    def __init__(self, network: TorchNetwork, lanes: int):
        self.network, self.lanes = network, lanes
        shape = (len(network.layers), lanes, network.weights.width)
        self._h, self._last_token, self._last_channel = (
            torch.zeros(shape, dtype=torch.float32, device=network.device) for _ in range(3)
        )

    def _shifted(self, n: Tensor, shift: Tensor, last: Tensor) -> Tensor:
        previous = torch.cat([last[None], n[:-1]])
        last.copy_(n[-1])
        return add(n, multiply(shift, previous))

    @torch.inference_mode()
    def run(self, ids: np.ndarray) -> Prediction:
        """Run inputs int32 ``[T, B]`` (BOS first) and return the prediction of the token that follows each."""
        require_denormals()
        net = self.network
        at = torch.from_numpy(ids.astype(np.int64)).to(net.device)
        x = multiply(to_float(net.embedding[at]), net.embedding_scale[at][..., None])
        for i, (products, vectors) in enumerate(net.layers):
            w_in, w_out, w_up, w_down = products
            token_shift, forget_bias, channel_shift = vectors
            q, s = quantise(self._shifted(normalise(x), token_shift, self._last_token[i]))
            z, f, g = clamp(w_in.linear(q, s), LINEAR_BOUND).chunk(3, -1)
            q, s = quantise(self._recur(self._h[i], z, add(f, forget_bias), g))
            x = clamp(add(x, w_out.linear(q, s)), RESIDUAL_BOUND)
            q, s = quantise(self._shifted(normalise(x), channel_shift, self._last_channel[i]))
            y = torch.clamp(clamp(w_up.linear(q, s), LINEAR_BOUND), min=0.0)
            q, s = quantise(multiply(y, y))
            x = clamp(add(x, w_down.linear(q, s)), RESIDUAL_BOUND)
        q, s = quantise(normalise(x), FINE_PEAK)
        high = (q + FINE // 2) >> FINE_BITS
        acc = FINE * net.head(high) + net.head(q - FINE * high)
        return Prediction(acc.cpu().numpy(), q.to(torch.int16).cpu().numpy(), s[..., 0].contiguous().cpu().numpy())

    @staticmethod
    def _recur(h: Tensor, z: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """Run the recurrence (Recur 1-12), updating the state `h` ``[B, d]``, and return the gated output."""
        w = subtract(constant(0.5, f), half_ratio(f))
        leak = multiply(w, w)
        keep = subtract(constant(1.0, leak), leak)
        new = multiply(leak, z)
        states = []
        for t in range(len(z)):
            h.copy_(add(multiply(keep[t], h), new[t]))
            states.append(h.clone())
        gate = multiply(g, add(constant(0.5, g), half_ratio(g)))
        return multiply(torch.stack(states), gate)
