"""The two-level cross-entropy, with its gradient computed in the forward pass.

A step needs the logits of 256 clusters and of one cluster's rows per token instead of the whole vocabulary's;
keeping no graph over them keeps memory small.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmzip.training.model import product_type


def _softmax_gradient(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses ``[N]`` and their gradient for the logits ``[N, C]`` (in place of the logits)."""
    normaliser = torch.logsumexp(logits, -1, keepdim=True)
    losses = (normaliser - logits.gather(1, target[:, None]))[:, 0]
    gradient = logits.sub_(normaliser).exp_()
    gradient.scatter_add_(1, target[:, None], gradient.new_full((len(target), 1), -1.0))
    return losses, gradient


class TwoLevelCrossEntropy(torch.autograd.Function):
    """Return the summed loss and the losses (nats) ``[N]`` of `target` given rows `h` ``[N, d]``.

    `target` is int64 ``[N]``; `starts` are the clusters' first ids; targets outside ``[0, V)`` cost nothing
    and give no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, w_cluster: Tensor, w_token: Tensor, target: Tensor, starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the losses and, cluster by cluster, the gradients."""
        vocab, clusters = len(w_token), len(w_cluster)
        dtype = product_type(h)
        rows = torch.nonzero((target >= 0) & (target < vocab))[:, 0]
        target = target[rows]
        cluster = torch.searchsorted(starts, target, right=True) - 1
        order = torch.argsort(cluster, stable=True)
        rows, target, cluster = rows[order], target[order], cluster[order]
        bounds = torch.searchsorted(cluster, torch.arange(clusters + 1, device=h.device)).tolist()
        first = [*starts.tolist(), vocab]

        hs = h[rows].to(dtype)
        w1 = w_cluster.to(dtype)
        loss_sorted, grad = _softmax_gradient((hs @ w1.t()).float(), cluster)
        grad = grad.to(dtype)
        grad_hs = (grad @ w1).float()
        grad_w1 = (grad.t() @ hs).float()
        grad_w2 = torch.zeros_like(w_token)
        w2 = w_token.to(dtype)
        for k in range(clusters):
            lo, hi = bounds[k], bounds[k + 1]
            if lo == hi or first[k + 1] - first[k] == 1:
                continue
            weights = w2[first[k] : first[k + 1]]
            losses, grad = _softmax_gradient((hs[lo:hi] @ weights.t()).float(), target[lo:hi] - first[k])
            loss_sorted[lo:hi] += losses
            grad = grad.to(dtype)
            grad_hs[lo:hi] += (grad @ weights).float()
            grad_w2[first[k] : first[k + 1]] = (grad.t() @ hs[lo:hi]).float()

        losses = loss_sorted.new_zeros(len(h)).index_copy_(0, rows, loss_sorted)
        grad_h = torch.zeros_like(h, dtype=torch.float32).index_copy_(0, rows, grad_hs)
        ctx.save_for_backward(grad_h, grad_w1, grad_w2)
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, grad_sum: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Scale the gradients by that of the sum."""
        grad_h, grad_w1, grad_w2 = ctx.saved_tensors
        return grad_h * grad_sum, grad_w1 * grad_sum, grad_w2 * grad_sum, None, None
