"""The published network in floating point, to say what its exact import loses."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from llmzip.pretrained.rotations import rotations
from llmzip.pretrained.source import Source

LANES_AT_ONCE = 8


class Reference:
    """A published network in float32 with the full attention of a text from its beginning."""

    def __init__(self, source: Source, longest: int):
        self.source = source
        cosines, sines = rotations(source.rotary_base, source.head_width, longest)
        self._cosines, self._sines = (torch.from_numpy(np.tile(table, 2)) for table in (cosines, sines))

    def _tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.source.tensor(name))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean = x.square().mean(-1, keepdim=True)
        return x * torch.rsqrt(mean + self.source.epsilon) * self._tensor(name)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        bias = self._tensor(name + ".bias") if self.source.biased and name[-6:-5] in "qkv" else None
        return functional.linear(x, self._tensor(name + ".weight"), bias)

    def _rotated(self, x: Tensor) -> Tensor:
        """Rotate float32 ``[B, heads, T, head_width]``."""
        steps, half = x.shape[-2], x.shape[-1] // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
        return x * self._cosines[:steps] + turned * self._sines[:steps]

    @torch.inference_mode()
    def logits(self, rows: Tensor) -> Tensor:
        """Return the logits float32 ``[B, T, rows of the embedding]`` after each of the inputs int64 ``[B, T]``."""
        source = self.source
        x = self._tensor("model.embed_tokens.weight")[rows]
        lanes, steps = rows.shape
        for i in range(source.layers):
            at = f"model.layers.{i}."
            n = self._norm(x, at + "input_layernorm.weight")
            q, k, v = (
                self._linear(n, f"{at}self_attn.{part}_proj").view(lanes, steps, -1, source.head_width).transpose(1, 2)
                for part in "qkv"
            )
            mean = functional.scaled_dot_product_attention(
                self._rotated(q), self._rotated(k), v, is_causal=True, enable_gqa=True
            )
            x = x + self._linear(mean.transpose(1, 2).reshape(lanes, steps, -1), at + "self_attn.o_proj")
            n = self._norm(x, at + "post_attention_layernorm.weight")
            gated = functional.silu(self._linear(n, at + "mlp.gate_proj")) * self._linear(n, at + "mlp.up_proj")
            x = x + self._linear(gated, at + "mlp.down_proj")
        n = self._norm(x, "model.norm.weight")
        return functional.linear(n, self._tensor("model.embed_tokens.weight" if source.tied else "lm_head.weight"))

    def bits(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """Return what `targets` int ``[T, B]`` cost after `inputs`, both rows of the embedding; -1 costs nothing."""
        total = 0.0
        for part in groups_of_lanes(inputs.shape[1]):
            logits = self.logits(torch.from_numpy(np.ascontiguousarray(inputs[:, part].T.astype(np.int64))))
            wanted = torch.from_numpy(np.ascontiguousarray(targets[:, part].T.astype(np.int64)))
            total += float(
                functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-1, reduction="sum")
            )
        return total / math.log(2)


def groups_of_lanes(lanes: int) -> Iterator[slice]:
    """Yield groups of lanes to run at once: all of a long text would take too much memory."""
    for at in range(0, lanes, LANES_AT_ONCE):
        yield slice(at, at + LANES_AT_ONCE)
