"""How to train: shapes by name, and a recipe that fits the amount of text."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmzip.training.model import ModelConfig


@dataclass(frozen=True)
class Shape:
    """The shape that a size's name stands for; see :class:`llmzip.training.model.ModelConfig`."""

    width: int
    layers: int
    hidden: int
    vocab: int
    arch: str = "gated"


SIZES = {  # multiply-adds per token in the body
    "tiny": Shape(128, 3, 384, 4096),  # 0.5 M: for less than a megabyte of text
    "small": Shape(256, 6, 1024, 16384),  # 4.7 M
    "default": Shape(384, 6, 1536, 16384),  # 10.6 M
    "large": Shape(640, 10, 2560, 32768),  # 49 M
}
TINY_BELOW = 1 << 20  # bytes of text
LEAST_VOCAB = 320
TOKENIZER_BYTES = 96 << 20  # of text, spread over the corpus, are enough for a vocabulary


@dataclass(frozen=True)
class Recipe:
    """What a run may vary; the defaults are the measured recipe."""

    minutes: float = math.inf  # wall-clock time of training, over all sessions of the run
    steps: float = math.inf
    lanes: int = 64
    window: int = 128  # tokens of truncated back-propagation
    fuse: bool = False  # elementwise operations, see :mod:`llmzip.training.fusion`
    matrix_learning_rate: float = 0.01  # Muon
    vector_learning_rate: float = 0.004  # AdamW
    warmup_steps: int = 40
    decay_from: float = 0.15  # share of the budget after which the rate falls
    seed: int = 1
    checkpoint_seconds: float = 300
    report_steps: int = 10
    validations: int = 20  # over the whole budget
    patience: int = 6  # validations without progress after which training stops


def vocabulary_for(text_bytes: int, most: int) -> int:
    """Return the vocabulary size that a corpus can teach: 1,024 for 100 KB, 4,096 for 1 MB, `most` from a few MB on."""
    return max(LEAST_VOCAB, min(most, int(1024 * (text_bytes / 100_000) ** 0.6)))


def clusters_for(vocab: int) -> int:
    """Return the number of classes of the head's first level: about the one that makes a step cheapest."""
    return min(256, max(16, 2 * math.isqrt(vocab)))


def config_for(shape: Shape, vocab: int) -> ModelConfig:
    """Return the network's configuration for the vocabulary there is."""
    return ModelConfig(vocab, shape.width, shape.layers, shape.hidden, clusters_for(vocab), arch=shape.arch)


def lanes_and_window(tokens: int, processes: int) -> tuple[int, int]:
    """Return lanes and window for a corpus: 64 x 128 tokens a step, far fewer if an epoch would be few steps."""
    batch = max(512, min(8192, tokens // 64))
    window = 128 if batch >= 2048 else 64
    lanes = 1 << max(2, (batch // window).bit_length() - 1)
    return -(-lanes // processes) * processes, window


def piece_bytes_for(text_bytes: int) -> int:
    """Return the longest piece: 64 KiB, less in a small corpus so that there are enough to shuffle."""
    return max(1024, min(1 << 16, text_bytes // 64))
