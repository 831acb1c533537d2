"""Exact inference of Llama-type networks on any torch device: docs/FORMAT.md's *Llama*, as :mod:`.forward` runs it.

Integer products are float matrix products whose sums are whole numbers that the type holds, exact in any order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from llmzip.network.cpu import require_denormals
from llmzip.network.kernels import SMALLEST
from llmzip.network.llama import attention, kernels
from llmzip.network.llama.flat_head import FlatPrediction, new_prediction, sum_clusters
from llmzip.network.llama.turn import turned_at_once
from llmzip.network.llama.weights import SINKS, LlamaLayer, LlamaWeights
from llmzip.network.torch_device import Product, quantise, require_exact_products
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
from llmzip.network.weights import Matrix

STEPS_AT_ONCE = 64
K_BLOCK = 1024  # products of 127 by 127 whose sum float32 holds exactly
_EXP2 = (kernels.C5, kernels.C4, kernels.C3, kernels.C2, kernels.C1, kernels.C0)


class TorchLlama:
    """The weights on a torch device; may be shared between sessions and threads."""

    segment_rows = 512

    def __init__(self, weights: LlamaWeights, device: str):
        require_exact_products()
        self.weights, self.device = weights, torch.device(device)

        def on_device(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

        self.embedding, self.embedding_scale = on_device(weights.embedding.q), on_device(weights.embedding.scale)
        self.layers = [self._layer(layer) for layer in weights.layers]
        self.biases = [on_device(layer.attention_bias) for layer in weights.layers]
        q, scale = weights.head_matrix()
        self.head = Product(Matrix(q, scale), self.device, K_BLOCK)
        self.head_scale = on_device(scale * kernels.UNITS_OF_NATS)
        self.norm = on_device(weights.norm)
        self.cosines, self.sines = on_device(weights.cosines), on_device(weights.sines)
        self.starts = np.append(weights.cluster_starts, weights.vocab).astype(np.int32)
        self.absent = on_device(weights.absent.astype(np.int64))

    def _layer(self, layer: LlamaLayer) -> list[Product]:
        parts = (layer.attention_in, layer.attention_out, layer.mlp_in, layer.mlp_out)
        return [Product(part, self.device, K_BLOCK) for part in parts]

    def session(self, lanes: int, *, recheck: bool = False) -> TorchLlamaSession:  # noqa: ARG002
        """Return a fresh state for `lanes` texts; other devices' products are not recomputed."""
        return TorchLlamaSession(self, lanes)


def _output(product: Product, q: Tensor, s: Tensor) -> Tensor:
    """Return a product's output for quantised rows with scales ``[..., 1]``, clamped (Linear 1-5)."""
    return clamp(product.linear(q, s), float(kernels.BOUND))


def _exp2_below(fraction: Tensor) -> Tensor:
    """Return 2^-`fraction` (Exp2 1-10)."""
    p = constant(float(_EXP2[0]), fraction)
    for c in _EXP2[1:]:
        p = add(multiply(p, fraction), constant(float(c), fraction))
    return p


def _powers(below: Tensor, one: float) -> Tensor:
    """Return `one` * 2^-(`below` / 4096), cut to int32; `below` int32 is not negative (Power 1-5)."""
    n = torch.clamp(below >> kernels.SCORE_BITS, max=kernels.DEEPEST)
    f = multiply(to_float(below & ((1 << kernels.SCORE_BITS) - 1)), constant(float(kernels.SCORE_UNIT), below))
    return multiply(_exp2_below(f), constant(one, f)).to(torch.int32) >> n


def _turn(x: Tensor) -> Tensor:
    """Turn rows (Turn 1-4)."""
    width = x.shape[-1]
    half = width // turned_at_once(width)
    while half < width:
        pairs = x.unflatten(-1, (-1, 2, half))
        low, high = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack([add(low, high), subtract(low, high)], dim=-2).flatten(-3)
        half *= 2
    return x


class TorchLlamaSession:
    """The state of `lanes` texts in a :class:`TorchLlama`."""

    def __init__(self, network: TorchLlama, lanes: int):
        self.network, self.lanes = network, lanes
        shape = network.weights.shape
        each = (len(network.layers), lanes, shape.kv_heads, shape.window)

        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.float32, device=network.device)

        self._keys, self._values = zeros(*each, shape.head_width), zeros(*each, shape.head_width)
        self._key_scales, self._value_scales = zeros(*each), zeros(*each)
        self._slot = 0
        self._peak = float(kernels.norm_peak(shape.width))

    @torch.inference_mode()
    def run(self, ids: np.ndarray) -> FlatPrediction:
        """Run inputs int32 ``[T, B]`` (the start of text first) and return what follows each."""
        require_denormals()
        shape, parts, at = self.network.weights.shape, [], 0
        while at < len(ids):
            if self._slot == shape.window:
                self._move_on()
            count = min(len(ids) - at, STEPS_AT_ONCE, shape.window - self._slot)
            parts.append(self._forward(torch.from_numpy(ids[at : at + count].astype(np.int64))).cpu().numpy())
            at, self._slot = at + count, self._slot + count
        frequencies = np.concatenate(parts)
        steps, lanes, vocab = frequencies.shape
        starts = self.network.starts
        found = new_prediction(steps, lanes, vocab, len(starts))._replace(frequencies=frequencies)
        rows = found.by_rows()
        for row in range(ids.size):
            rows.likeliest[row] = sum_clusters(rows.frequencies[row], starts, rows.sums[row])
        return found

    def _inverse_norm(self, x: Tensor) -> Tensor:
        """Return 1 / sqrt(mean of squares + epsilon) ``[..., 1]`` (Norm 1-12)."""
        weights = self.network.weights
        m = torch.clamp(absmax(x), min=float(SMALLEST))
        r = divide(constant(self._peak, m), m)
        k = round_to_int(multiply(x, r)).to(torch.int64)
        total = (k * k).sum(-1, keepdim=True)
        a = multiply(to_float(total), constant(float(np.float32(1.0 / weights.shape.width)), m))
        a = add(divide(divide(a, r), r), constant(float(np.float32(weights.epsilon)), m))
        a = torch.clamp(square_root(a), min=float(SMALLEST))
        return divide(constant(1.0, a), a)

    def _normalised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return quantised rows and their scales (Norm 1-14)."""
        c = self._inverse_norm(x)
        q, s = quantise(x)
        return q, multiply(s, c)

    def _rotated(self, x: Tensor, slots: slice, sign: float = 1.0) -> Tensor:
        """Rotate float32 ``[T, B, heads, head_width]``, T slots (Rotate 1-6)."""
        half = x.shape[-1] // 2
        cosine = self.network.cosines[slots][:, None, None]
        sine = self.network.sines[slots][:, None, None]
        turn = multiply(sine, constant(sign, sine))
        a, b = x[..., :half], x[..., half:]
        return torch.cat(
            [subtract(multiply(a, cosine), multiply(b, turn)), add(multiply(b, cosine), multiply(a, turn))], dim=-1
        )

    def _mix_tokens(self, i: int, x: Tensor) -> Tensor:
        """Return the output of the attention of layer `i` (Step 4-5)."""
        net, shape = self.network, self.network.weights.shape
        linear_in, linear_out = net.layers[i][:2]
        steps, first = len(x), self._slot
        new, seen = slice(first, first + steps), slice(0, first + steps)
        q, s = self._normalised(x)
        rows = add(_output(linear_in, q, s), net.biases[i]).unflatten(-1, (-1, shape.head_width))
        queries, keys, values = rows.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=2)
        queries, query_scales = quantise(self._rotated(queries, new), float(kernels.QUERY_PEAK))
        unit = constant(float(kernels.score_scale(shape.head_width)), query_scales)
        query_scales = multiply(query_scales, unit)
        self._keep(self._keys[i], self._key_scales[i], new, self._rotated(keys, new))
        self._keep(self._values[i], self._value_scales[i], new, values)
        each = shape.heads // shape.kv_heads
        # float64 holds every sum of these whole numbers.
        grouped = queries.unflatten(2, (-1, each)).double().permute(1, 2, 0, 3, 4)  # [B, groups, T, each, head_width]
        scores = grouped.flatten(2, 3) @ self._keys[i][:, :, seen].double().transpose(-1, -2)
        scores = scores.unflatten(2, (steps, each)).float()  # [B, groups, T, each, W]
        x = multiply(scores, query_scales.unflatten(2, (-1, each)).permute(1, 2, 0, 3, 4))
        x = clamp(multiply(x, self._key_scales[i][:, :, None, None, seen]), float(kernels.BOUND))
        score = round_to_int(x)
        slots = torch.arange(first + steps, device=net.device)
        hidden = (slots[None] > slots[first:, None])[:, None]  # [T, 1, W]
        score = score.masked_fill(hidden, -(1 << 30))
        weight = _powers(score.amax(-1, keepdim=True) - score, float(kernels.WEIGHT_ONE)).masked_fill(hidden, 0)
        scales = self._value_scales[i][:, :, seen]
        peak = torch.clamp(scales.cummax(-1).values[:, :, first:, None, None], min=float(SMALLEST))
        total = to_float(weight.sum(-1, keepdim=True, dtype=torch.int32))
        share = divide(constant(float(attention.SHARE_ONE), total), total)
        share = divide(share, peak.expand_as(share))
        weight = round_to_int(multiply(multiply(to_float(weight), share), scales[:, :, None, None]))
        mean = weight.double().flatten(2, 3) @ self._values[i][:, :, seen].double()
        mean = mean.unflatten(2, (steps, each)).float()
        mean = multiply(mean, multiply(peak, constant(float(attention.SHARE_UNIT), peak)))
        q, s = quantise(mean.permute(2, 0, 1, 3, 4).flatten(2))
        return _output(linear_out, q, s)

    def _keep(self, window: Tensor, scales: Tensor, slots: slice, rows: Tensor) -> None:
        """Put quantised rows ``[T, B, groups, head_width]`` into a window."""
        q, s = quantise(rows)
        window[:, :, slots] = to_float(q).permute(1, 2, 0, 3)
        scales[:, :, slots] = s[..., 0].permute(1, 2, 0)

    def _mix_channels(self, i: int, x: Tensor) -> Tensor:
        """Return the output of the MLP of layer `i` (Step 6)."""
        linear_in, linear_out = self.network.layers[i][2:]
        g, u = _output(linear_in, *self._normalised(x)).chunk(2, -1)
        t = torch.clamp(multiply(g.abs(), constant(float(kernels.LOG2E), g)), max=30.0)
        n = t.to(torch.int32)
        one = float(kernels.SIGMOID_ONE)
        e = multiply(_exp2_below(subtract(t, to_float(n))), constant(one, t)).to(torch.int32) >> n
        above = torch.where(g >= 0, constant(one, g), to_float(e))
        gate = multiply(g, divide(above, to_float(kernels.SIGMOID_ONE_INT + e)))
        return _output(linear_out, *quantise(_turn(multiply(gate, u))))

    def _forward(self, ids: Tensor) -> Tensor:
        """Return the frequencies int32 ``[T, B, V]`` after inputs ``[T, B]`` (Step 2-11)."""
        net, bound = self.network, float(kernels.RESIDUAL_BOUND)
        ids = ids.to(net.device)
        x = multiply(to_float(net.embedding[ids]), net.embedding_scale[ids][..., None])
        for i in range(len(net.layers)):
            x = clamp(add(x, self._mix_tokens(i, x)), bound)
            x = clamp(add(x, self._mix_channels(i, x)), bound)
        q, s = quantise(_turn(multiply(_turn(multiply(x, self._inverse_norm(x))), net.norm)))
        logits = multiply(multiply(to_float(net.head(q)), s), net.head_scale)
        logit = round_to_int(clamp(logits, float(kernels.BOUND)))
        found = _powers(logit.amax(-1, keepdim=True) - logit, float(kernels.FREQUENCY_ONE)).clamp(min=1)
        found[..., net.absent] = 1
        return found

    def _move_on(self) -> None:
        """Drop the window's older segment and rotate the keys of the other back by its length (Move 1-3)."""
        segment = self.network.weights.shape.segment
        new, old = slice(SINKS, SINKS + segment), slice(SINKS + segment, SINKS + 2 * segment)
        at = slice(segment, segment + 1)
        for i in range(len(self.network.layers)):
            keys = multiply(self._keys[i][:, :, old], self._key_scales[i][:, :, old, None])
            self._keep(self._keys[i], self._key_scales[i], new, self._rotated(keys.permute(2, 0, 1, 3), at, -1.0))
            self._values[i][:, :, new] = self._values[i][:, :, old].clone()
            self._value_scales[i][:, :, new] = self._value_scales[i][:, :, old].clone()
        self._slot -= segment
