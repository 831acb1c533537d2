"""The network as docs/FORMAT.md specifies it, all architectures: NumPy float32, one rounding per operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from llmzip.exp2 import exp2_table
from llmzip.network.head import Prediction
from llmzip.network.weights import Matrix, Weights

ONE, HALF = np.float32(1), np.float32(0.5)
WINDOW = 128
EXP2 = exp2_table().astype(np.int64)
State = dict[str, Any]


def absmax(u: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u).max(-1, keepdims=True), np.float32(2.0**-40))


def quantise(u: np.ndarray, peak: int = 127) -> tuple[np.ndarray, np.ndarray]:
    m = absmax(u)
    return np.rint(u * (np.float32(peak) / m)).astype(np.int64), m * np.float32(1 / peak)


def normalise(x: np.ndarray) -> np.ndarray:
    r = np.float32(1023) / absmax(x)
    k = np.rint(x * r).astype(np.int64)
    total = np.maximum((k * k).sum(-1, keepdims=True), 1)
    return x * (r / np.sqrt(total.astype(np.float32) * np.float32(1 / x.shape[-1])))


def linear(matrix: Matrix, u: np.ndarray) -> np.ndarray:
    q, s = quantise(u)
    return (q @ matrix.q.astype(np.int64).T).astype(np.float32) * s * matrix.scale


def clamped(matrix: Matrix, u: np.ndarray, parts: int) -> list[np.ndarray]:
    return np.split(np.clip(linear(matrix, u), -1024, 1024), parts, -1)


def half_ratio(x: np.ndarray) -> np.ndarray:
    return HALF * (x / (np.abs(x) + ONE))


def gate(x: np.ndarray) -> np.ndarray:
    return HALF + half_ratio(x)


def softsign(x: np.ndarray) -> np.ndarray:
    return half_ratio(x) + half_ratio(x)


def leak_of(x: np.ndarray) -> np.ndarray:
    w = HALF - half_ratio(x)
    return w * w


def gated(layer: Any, n: np.ndarray, state: State) -> np.ndarray:
    u = n + layer.token_shift * state.get("token", np.zeros_like(n))
    z, f, g = clamped(layer.token_in, u, 3)
    leak = leak_of(f + layer.forget_bias)
    state["h"], state["token"] = (ONE - leak) * state.get("h", np.zeros_like(n)) + leak * z, n
    return linear(layer.token_out, state["h"] * (g * gate(g)))


def lstm(layer: Any, n: np.ndarray, state: State) -> np.ndarray:
    h, c = state.get("h", np.zeros_like(n)), state.get("c", np.zeros_like(n))
    parts = zip(
        clamped(layer.token_in, n, 4), clamped(layer.token_back, h, 4), np.split(layer.token_bias, 4), strict=True
    )
    z, i, f, o = ((a + b) + bias for a, b, bias in parts)
    kept = (ONE - leak_of(f)) * c
    state["c"] = np.clip(kept + gate(i) * softsign(z), -1024, 1024)
    state["h"] = gate(o) * softsign(state["c"])
    return linear(layer.token_out, state["h"])


def gru(layer: Any, n: np.ndarray, state: State) -> np.ndarray:
    h = state.get("h", np.zeros_like(n))
    fresh, back, bias = clamped(layer.token_in, n, 3), clamped(layer.token_back, h, 3), np.split(layer.token_bias, 3)
    leak = leak_of((fresh[1] + back[1]) + bias[1])
    past = back[0] * gate((fresh[2] + back[2]) + bias[2])
    z = softsign((fresh[0] + past) + bias[0])
    kept = (ONE - leak) * h
    state["h"] = np.clip(kept + leak * z, -1024, 1024)
    return linear(layer.token_out, state["h"])


def transformer(layer: Any, n: np.ndarray, state: State) -> np.ndarray:
    d = n.shape[1]
    heads = d // 32 if d % 32 == 0 else 1
    y = linear(layer.token_in, n)
    q, k, v = y[:, :d], np.clip(y[:, d : 2 * d], -1024, 1024), np.clip(y[:, 2 * d :], -64, 64)
    q, qs = quantise(q.reshape(-1, heads, d // heads))
    k, ks = quantise(k.reshape(-1, heads, d // heads))
    v = np.rint(v * np.float32(512)).astype(np.int64).reshape(-1, heads, d // heads)
    window = state["window"] = [(k, ks, v), *state.get("window", [])][:WINDOW]  # the youngest first
    distance = np.rint(layer.token_distance * np.float32(4096)).astype(np.int64).reshape(heads, WINDOW)
    scores = []
    for back, (key, key_scale, _) in enumerate(window):
        dot = (q * key).sum(-1, keepdims=True).astype(np.float32)
        x = np.clip(dot * qs * key_scale, -(2.0**20), 2.0**20)
        scores.append(np.rint(x).astype(np.int64)[..., 0] + distance[:, back])
    e = np.max(scores, axis=0) - np.array(scores)
    weights = EXP2[e % 4096] >> np.minimum(e // 4096, 31)  # [window, B, heads]
    mass = sum(w[..., None] * value for w, (_, _, value) in zip(weights, window, strict=True))
    mean = mass.astype(np.float32) / weights.sum(0)[..., None].astype(np.float32)
    return linear(layer.token_out, (mean * np.float32(2.0**-9)).reshape(-1, d))


MIXERS: dict[str, Callable[[Any, np.ndarray, State], np.ndarray]] = {
    "gated": gated,
    "lstm": lstm,
    "gru": gru,
    "transformer": transformer,
}


def mix_channels(layer: Any, n: np.ndarray, state: State) -> np.ndarray:
    u = n + layer.channel_shift * state.get("channel", np.zeros_like(n))
    state["channel"] = n
    y = np.clip(linear(layer.channel_up, u), 0, 1024)
    return linear(layer.channel_down, y * y)


@np.errstate(under="ignore")
def pseudo_code(weights: Weights, ids: np.ndarray) -> Prediction:
    states: list[State] = [{} for _ in weights.layers]
    hidden, scales, accs = [], [], []
    for step in ids:
        x = weights.embedding.q[step].astype(np.float32) * weights.embedding.scale[step][:, None]
        for layer, state in zip(weights.layers, states, strict=True):
            for mix in (MIXERS[weights.arch], mix_channels):
                x = np.clip(x + mix(layer, normalise(x), state), -65536, 65536)
        q, s = quantise(normalise(x), 127 * 16)
        assert x.dtype == s.dtype == np.float32
        hidden.append(q.astype(np.int16))
        scales.append(s[:, 0])
        accs.append((q @ weights.head_cluster.q.astype(np.int64).T).astype(np.int32))
    return Prediction(np.stack(accs), np.stack(hidden), np.stack(scales))
