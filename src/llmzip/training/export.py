"""Export: a trained float network becomes the integers that :mod:`llmzip.exact` runs; and back, to train on."""

from __future__ import annotations

import math

import numpy as np
import torch

from llmzip.model import LanguageModel, ModelConfig
from llmzip.weights import SCALE_RANGE, WEIGHT_PEAK, LayerWeights, Matrix, Weights

LOGIT_UNIT = 4096 * math.log2(math.e)  # the coder's logits count in 2^-12 of a bit


def quantise(weight: torch.Tensor, factor: float = 1.0) -> Matrix:
    """Round a float matrix ``[N, K]`` to 7 bits with a scale per row, times `factor`.

    An all-zero row gets scale 1 (times `factor`).
    """
    w = weight.detach().to("cpu", torch.float64).numpy()
    peak = np.abs(w).max(axis=1)
    scale = np.where(peak > 0, peak / WEIGHT_PEAK, 1.0)
    q = np.rint(w / scale[:, None]).astype(np.int8)
    return Matrix(q, np.clip(scale * factor, *SCALE_RANGE).astype(np.float32))


def _vector(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().to("cpu", torch.float32).numpy()


def export(model: LanguageModel) -> Weights:
    """Return the exact network of a trained model."""
    layers = []
    for token, channel in zip(model.token_mixers, model.channel_mixers, strict=True):
        layers.append(
            LayerWeights(
                token_shift=_vector(token.shift),
                token_in=quantise(token.w_in.weight),
                forget_bias=_vector(token.forget_bias),
                token_out=quantise(token.w_out.weight),
                channel_shift=_vector(channel.shift),
                channel_up=quantise(channel.w_up.weight),
                channel_down=quantise(channel.w_down.weight),
            )
        )
    return Weights(
        embedding=quantise(model.embedding.weight),
        layers=tuple(layers),
        head_cluster=quantise(model.head_cluster, LOGIT_UNIT),
        head_token=quantise(model.head_token, LOGIT_UNIT),
        cluster_starts=model.cluster_starts.to("cpu", torch.int32).numpy(),
    )


def restore(weights: Weights) -> LanguageModel:
    """Return the float network with the weights of an exact one: where personalising starts."""
    config = ModelConfig(weights.vocab, weights.width, len(weights.layers), weights.hidden, len(weights.cluster_starts))
    model = LanguageModel(config, torch.from_numpy(weights.cluster_starts.astype(np.int64)))
    pairs: list[tuple[torch.Tensor, np.ndarray]] = [
        (model.embedding.weight, _floats(weights.embedding)),
        (model.head_cluster, _floats(weights.head_cluster, LOGIT_UNIT)),
        (model.head_token, _floats(weights.head_token, LOGIT_UNIT)),
    ]
    for token, channel, layer in zip(model.token_mixers, model.channel_mixers, weights.layers, strict=True):
        pairs += [
            (token.shift, layer.token_shift),
            (token.w_in.weight, _floats(layer.token_in)),
            (token.forget_bias, layer.forget_bias),
            (token.w_out.weight, _floats(layer.token_out)),
            (channel.shift, layer.channel_shift),
            (channel.w_up.weight, _floats(layer.channel_up)),
            (channel.w_down.weight, _floats(layer.channel_down)),
        ]
    with torch.no_grad():
        for parameter, values in pairs:
            parameter.copy_(torch.from_numpy(values))
    return model


def _floats(matrix: Matrix, factor: float = 1.0) -> np.ndarray:
    return matrix.q.astype(np.float32) * (matrix.scale / np.float32(factor))[:, None]
