"""The only element-wise operations that exact inference may use on torch tensors.

Each is one correctly rounded IEEE operation (or an exact one), so every device gives the same bits. What
torch offers beside them is approximate, fused or reordered. Two traps are closed here: ``scalar / tensor`` is
a reciprocal times the scalar in torch, and on CUDA ``tensor / scalar`` too, so both sides of :func:`divide`
are whole tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor


def constant(value: float, like: Tensor) -> Tensor:
    """Return a float32 tensor of `value` in the shape and on the device of `like`."""
    return torch.full_like(like, value, dtype=torch.float32)


def add(a: Tensor, b: Tensor) -> Tensor:
    """Return a + b, rounded once."""
    return torch.add(a, b)


def subtract(a: Tensor, b: Tensor) -> Tensor:
    """Return a - b, rounded once."""
    return torch.sub(a, b)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return a * b, rounded once."""
    return torch.mul(a, b)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, rounded once; neither may be a scalar that torch would turn into a reciprocal."""
    if a.dim() == 0 or b.dim() == 0:
        raise ValueError("exact division needs tensors on both sides")
    return torch.div(a, b)


def square_root(a: Tensor) -> Tensor:
    """Return the correctly rounded square root of float32.

    torch's own float32 root is not (MKL's vector library: 8 % of results off by one unit on an AVX2 CPU), so
    it is taken in float64 and rounded: no float32's root lies within 2^-51 of a rounding boundary,
    relatively, which is more than the error of any float64 root.
    """
    return torch.sqrt(a.to(torch.float64)).to(torch.float32)


def clamp(a: Tensor, bound: float) -> Tensor:
    """Return `a` limited to [-bound, bound]."""
    return torch.clamp(a, -bound, bound)


def absmax(a: Tensor) -> Tensor:
    """Return the largest magnitude of each row, ``[..., 1]``: the order of a maximum does not matter."""
    return a.abs().amax(-1, keepdim=True)


def round_to_int(a: Tensor) -> Tensor:
    """Return `a` rounded half to even, as int32."""
    return torch.round(a).to(torch.int32)


def to_float(a: Tensor) -> Tensor:
    """Return integers as float32, rounded half to even."""
    return a.to(torch.float32)
