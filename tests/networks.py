"""Tiny random networks for the tests: everything a model has, in kilobytes."""

from __future__ import annotations

import math

import numpy as np
import torch

from llmzip.model.file import dump
from llmzip.network.weights import LayerWeights, Matrix, Weights
from llmzip.training.export import export
from llmzip.training.model import LanguageModel, ModelConfig
from llmzip.training.token_mixers import new_model
from llmzip.vocabulary.tokenizer import Tokenizer
from llmzip.vocabulary.tree import DecisionTree, choose_clusters

# In the order of their ranks; each is made of two earlier tokens or bytes.
MERGES = (
    *("th", "in", "er", "an", "re", "on", "at", "en", "ed", "or", "es", "is", "it", "al", "ar", "st", "to"),
    *("nd", "ou", "the", "ing", "and", " t", " a", " the", " and", "ion", "e ", "d ", ", ", ". ", "00", "19"),
    *("  ", "    ", "é", "ü"),
)


def tiny_tokenizer() -> Tokenizer:
    """Return a vocabulary of the bytes and a few merges."""
    ranks = {merge.encode(): rank for rank, merge in enumerate(MERGES)}
    tokens = sorted([*(bytes([i]) for i in range(256)), *ranks])
    return Tokenizer(tokens, [ranks.get(token, -1) for token in tokens])


def tiny_model(
    seed: int = 0, *, width: int = 32, layers: int = 2, hidden: int = 48, clusters: int = 12, arch: str = "gated"
) -> LanguageModel:
    """Return a network of the tiny tokenizer in which every weight matters.

    A fresh LanguageModel's output matrices are zero, so that nothing in it would be seen.
    """
    tokenizer = tiny_tokenizer()
    starts = choose_clusters(DecisionTree.build(tokenizer.tokens), np.ones(tokenizer.size), clusters)
    generator = torch.Generator().manual_seed(seed)
    model = new_model(
        ModelConfig(tokenizer.size, width, layers, hidden, clusters, longest_memory=50, arch=arch),
        torch.from_numpy(starts.astype(np.int64)),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(0.3 * noise)
            elif name == "embedding.weight":
                parameter.copy_(noise)
            else:
                parameter.copy_(noise / math.sqrt(parameter.shape[1]))
    return model


def tiny_weights(seed: int = 0, **shape: int | str) -> Weights:
    """Return the exact network of :func:`tiny_model`."""
    return export(tiny_model(seed, **shape))


def tiny_model_file(seed: int = 0, *, dictionary: bytes = b"", **shape: int | str) -> bytes:
    """Return the model file of :func:`tiny_model`."""
    tokenizer = tiny_tokenizer()
    known = tokenizer.encode(dictionary).astype(np.uint16)
    return dump(tiny_weights(seed, **shape), tokenizer, {"name": f"tiny-{seed}"}, dictionary=known)


def hostile_weights(seed: int, *, width: int = 32, layers: int = 2, hidden: int = 48) -> Weights:
    """Return what the loader just about allows: scales and vectors at their bounds and at random between."""
    rng = np.random.default_rng(seed)

    def extreme(rows: int, low: float, high: float) -> np.ndarray:
        between = rng.uniform(low, high, rows)
        exponents = np.where(rng.random(rows) < 0.5, between, rng.choice([low, high], rows))
        return np.exp2(exponents).astype(np.float32)

    def matrix(rows: int, columns: int) -> Matrix:
        q = rng.integers(-63, 64, (rows, columns))
        q = np.where(rng.random((rows, 1)) < 0.5, rng.choice([-63, 63], (rows, columns)), q)
        q[rng.random(rows) < 0.1] = 0
        return Matrix(q.astype(np.int8), extreme(rows, -40, 20))

    def vector() -> np.ndarray:
        return extreme(width, -149, 10) * rng.choice(np.float32([-1, 1, 0]), width, p=[0.4, 0.4, 0.2])

    starts = np.arange(0, 256, 16, dtype=np.int32)
    built = tuple(
        LayerWeights(
            token_shift=vector(),
            token_in=matrix(3 * width, width),
            forget_bias=vector(),
            token_out=matrix(width, width),
            channel_shift=vector(),
            channel_up=matrix(hidden, width),
            channel_down=matrix(width, hidden),
        )
        for _ in range(layers)
    )
    return Weights(matrix(257, width), built, matrix(16, width), matrix(256, width), starts)


def random_inputs(weights: Weights, steps: int, lanes: int, seed: int = 0) -> np.ndarray:
    """Return inputs int32 ``[steps, lanes]`` for a session: BOS, then tokens."""
    ids = np.random.default_rng(seed).integers(0, weights.vocab, (steps, lanes), dtype=np.int32)
    ids[0] = weights.bos
    return ids
