"""The recurrence as one fused Triton kernel: on a GPU, the loop over time would start a kernel for each step.

A program goes through all steps of `BLOCK` neighbouring channels, the lanes' rows of a step laid end to end, and keeps
the state in registers. The arithmetic is float32, whatever the tensors' type.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128  # channels of a program


@triton.jit
def _forward(f, u, h0, h, steps, row, BLOCK: tl.constexpr):  # noqa: N803 - constants are written so
    """Write h[t] = f[t] * h[t - 1] + u[t]; `row` is the number of channels of all lanes."""
    at = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    inside = at < row
    state = tl.load(h0 + at, inside).to(tl.float32)
    for _ in range(steps):
        state = tl.load(f + at, inside).to(tl.float32) * state + tl.load(u + at, inside).to(tl.float32)
        tl.store(h + at, state, inside)
        at += row


@triton.jit
def _backward(f, h, h0, grad_h, grad_f, grad_u, steps, row, last, BLOCK: tl.constexpr):  # noqa: N803
    """Write grad_u[t] = grad_h[t] + f[t + 1] * grad_u[t + 1] and grad_f[t] = grad_u[t] * h[t - 1].

    `last` is where the last step begins.
    """
    first = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    inside = first < row
    at = first + last
    carried = tl.zeros((BLOCK,), tl.float32)
    for _ in range(steps - 1):
        grad = tl.load(grad_h + at, inside).to(tl.float32) + carried
        tl.store(grad_u + at, grad, inside)
        tl.store(grad_f + at, grad * tl.load(h + at - row, inside).to(tl.float32), inside)
        carried = tl.load(f + at, inside).to(tl.float32) * grad
        at -= row
    grad = tl.load(grad_h + first, inside).to(tl.float32) + carried
    tl.store(grad_u + first, grad, inside)
    tl.store(grad_f + first, grad * tl.load(h0 + first, inside).to(tl.float32), inside)


def forward(f: Tensor, u: Tensor, h0: Tensor) -> Tensor:
    """Return h ``[T, B, d]`` for f and u of that shape and h0 ``[B, d]``."""
    f, u, h0 = f.contiguous(), u.contiguous(), h0.contiguous()
    h, row = torch.empty_like(u), h0.numel()
    _forward[(triton.cdiv(row, BLOCK),)](f, u, h0, h, len(u), row, BLOCK)
    return h


def backward(f: Tensor, h: Tensor, h0: Tensor, grad_h: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of f and u; h is what :func:`forward` has returned."""
    f, h0, grad_h = f.contiguous(), h0.contiguous(), grad_h.contiguous()
    grad_f, grad_u = torch.empty_like(f), torch.empty_like(grad_h)
    steps, row = len(h), h0.numel()
    _backward[(triton.cdiv(row, BLOCK),)](f, h, h0, grad_h, grad_f, grad_u, steps, row, (steps - 1) * row, BLOCK)
    return grad_f, grad_u
