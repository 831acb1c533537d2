"""Export: a trained float network becomes the integers that :mod:`llmzip.network.cpu` runs; and back, to train on."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from llmzip.errors import ModelError
from llmzip.network.architectures.registry import LAYERS
from llmzip.network.llama.weights import LlamaWeights
from llmzip.network.networks import AnyWeights
from llmzip.network.weights import SCALE_RANGE, VECTOR_BOUND, WEIGHT_PEAK, LayerWeights, Matrix, Weights
from llmzip.training.model import LanguageModel, ModelConfig
from llmzip.training.token_mixers import new_model

LOGIT_UNIT = 4096 * math.log2(math.e)  # the coder's logits count in 2^-12 of a bit


Link = tuple[torch.Tensor, "float | np.ndarray"]  # a parameter, and the factor between it and the exact weights


def quantise(weight: torch.Tensor, factor: float | np.ndarray = 1.0) -> Matrix:
    """Round a float matrix ``[N, K]`` to 7 bits with a scale per row, times `factor` (one, or one per row).

    An all-zero row gets scale 1 (times `factor`).
    """
    w = weight.detach().to("cpu", torch.float64).numpy()
    peak = np.abs(w).max(axis=1)
    scale = np.where(peak > 0, peak / WEIGHT_PEAK, 1.0)
    q = np.rint(w / scale[:, None]).astype(np.int8)
    return Matrix(q, np.clip(scale * factor, *SCALE_RANGE).astype(np.float32))


def _layer_links(arch: str, token: Any, channel: Any) -> dict[str, Link]:
    """Return what each field of a layer's exact weights is made from."""
    links: dict[str, Link] = {
        "channel_shift": (channel.shift, 1.0),
        "channel_up": (channel.w_up.weight, 1.0),
        "channel_down": (channel.w_down.weight, 1.0),
        "token_in": (token.w_in.weight, 1.0),
        "token_out": (token.w_out.weight, 1.0),
    }
    if arch == "gated":
        links |= {"token_shift": (token.shift, 1.0), "forget_bias": (token.forget_bias, 1.0)}
    elif arch == "transformer":
        width, _ = token.w_out.weight.shape
        score = np.ones(3 * width)
        score[:width] = LOGIT_UNIT / math.sqrt(width / token.heads)
        links |= {"token_in": (token.w_in.weight, score), "token_distance": (token.distance, math.log2(math.e))}
    else:
        links |= {"token_back": (token.w_back.weight, 1.0), "token_bias": (token.bias, 1.0)}
    return links


def _head_links(model: LanguageModel) -> dict[str, Link]:
    return {
        "embedding": (model.embedding.weight, 1.0),
        "head_cluster": (model.head_cluster, LOGIT_UNIT),
        "head_token": (model.head_token, LOGIT_UNIT),
    }


def _exact(link: Link) -> Matrix | np.ndarray:
    parameter, factor = link
    if parameter.ndim == 2:
        return quantise(parameter, factor)
    vector = parameter.detach().to("cpu", torch.float32).numpy() * np.float32(factor)
    return np.clip(vector, -VECTOR_BOUND, VECTOR_BOUND)


def export(model: LanguageModel) -> Weights:
    """Return the exact network of a trained model."""
    arch = model.config.arch
    kind: Any = LayerWeights if arch == "gated" else LAYERS[arch]
    layers = []
    for token, channel in zip(model.token_mixers, model.channel_mixers, strict=True):
        links = _layer_links(arch, token, channel)
        layers.append(kind(**{name: _exact(link) for name, link in links.items()}))
    head: dict[str, Any] = {name: _exact(link) for name, link in _head_links(model).items()}
    starts = cast(Tensor, model.cluster_starts).to("cpu", torch.int32).numpy()
    return Weights(layers=tuple(layers), cluster_starts=starts, **head)


def restore(weights: AnyWeights) -> LanguageModel:
    """Return the float network with the weights of an exact one: where personalising starts."""
    if isinstance(weights, LlamaWeights):
        raise ModelError("the weights of published models cannot be trained")
    shape = weights.vocab, weights.width, len(weights.layers), weights.hidden, len(weights.cluster_starts)
    config = ModelConfig(*shape, arch=weights.arch)
    model = new_model(config, torch.from_numpy(weights.cluster_starts.astype(np.int64)))
    parts: list[tuple[Link, Any]] = [(link, getattr(weights, name)) for name, link in _head_links(model).items()]
    for token, channel, layer in zip(model.token_mixers, model.channel_mixers, weights.layers, strict=True):
        links = _layer_links(config.arch, token, channel)
        parts += [(link, getattr(layer, name)) for name, link in links.items()]
    with torch.no_grad():
        for (parameter, factor), part in parts:
            if isinstance(part, Matrix):
                part = part.q * (part.scale / np.float32(factor))[:, None]
            else:
                part = part / np.float32(factor)
            parameter.copy_(torch.from_numpy(part))
    return model


def between(base: LanguageModel, model: LanguageModel, alpha: float) -> LanguageModel:
    """Return the network that is `alpha` (0 to 1) of the way from `base` to `model`, a fine-tuned copy of it.

    It keeps more of what `base` knows of other text than it gives up of what was learnt (WiSE-FT, Wortsman et al.
    2022).
    """
    with torch.no_grad():
        for old, new in zip(base.parameters(), model.parameters(), strict=True):
            old.lerp_(new, alpha)
    return base
