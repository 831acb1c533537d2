"""The two-level loss from its definition, row by row."""

from __future__ import annotations

import torch


def naive_losses(h: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor, target: torch.Tensor, starts: torch.Tensor):
    """Return -log of P(cluster) * P(token | cluster), from the definition."""
    bounds = [*starts.tolist(), len(w2)]
    losses = []
    for row, token in zip(h, target.tolist(), strict=True):
        if not 0 <= token < len(w2):
            losses.append(row.sum() * 0)
            continue
        cluster = max(c for c in range(len(starts)) if bounds[c] <= token)
        members = slice(bounds[cluster], bounds[cluster + 1])
        first = torch.log_softmax(w1 @ row, 0)[cluster]
        second = torch.log_softmax(w2[members] @ row, 0)[token - bounds[cluster]]
        losses.append(-first - second)
    return torch.stack(losses)
