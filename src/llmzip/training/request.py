"""The request for a training, and the shape and recipe that follow from it for a given text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from llmzip.training.recipe import SIZES, TINY_BELOW, Recipe, Shape, lanes_and_window, vocabulary_for

EPOCHS, MINUTES = 8, 60.0  # what ends training if no budget is given: small texts are learnt by heart beyond it
# Personalising (docs/experiments/2026-11-24-personalising.md): the learning rates as shares of those of training, more
# for the rows of single tokens than for the matrices, which all text needs; alpha is how far the exported network goes
# from the old weights to the new.
MATRIX_SHARE, VECTOR_SHARE, PERSONAL_EPOCHS, PERSONAL_ALPHA, PERSONAL_DECAY = 0.08, 0.2, 3, 0.75, 0.5
PERSONAL_DICTIONARY = 1 << 20  # bytes of the text; reading them takes a process a tenth of a second


@dataclass(frozen=True)
class Request:
    """What the user asked for; None where the text decides."""

    paths: tuple[str | Path, ...]  # files, folders, URLs
    output: Path
    field: str | None = None
    work: Path | None = None
    resume: bool = False
    force: bool = False
    base: str | None = None
    arch: str | None = None
    size: str | None = None
    width: int | None = None
    layers: int | None = None
    hidden: int | None = None
    vocab: int | None = None
    minutes: float | None = None
    steps: int | None = None
    lanes: int | None = None
    window: int | None = None
    fuse: bool = False
    dictionary: int | None = None
    patience: int = 6
    checkpoint_seconds: float = 300
    seed: int = 1
    device: str = "auto"
    threads: int = 1
    quiet: bool = False

    @property
    def folder(self) -> Path:
        """Return the folder to work in."""
        return self.work or self.output.with_suffix(".train")

    @property
    def card(self) -> Path:
        """Return the model card's file."""
        return self.output.with_suffix(".md")

    @property
    def dictionary_bytes(self) -> int:
        """Return how much of the text the model may hold."""
        if self.dictionary is None:
            return PERSONAL_DICTIONARY if self.base else 0
        return self.dictionary

    def shape(self, text_bytes: int) -> Shape:
        """Return the network's shape."""
        named = SIZES[self.size or ("tiny" if text_bytes < TINY_BELOW else "small")]
        most = self.vocab or named.vocab
        return Shape(
            self.width or named.width,
            self.layers or named.layers,
            self.hidden or named.hidden,
            vocabulary_for(text_bytes, most),
            self.arch or named.arch,
        )

    def recipe(self, tokens: int, processes: int) -> Recipe:
        """Return how to train."""
        lanes, window = lanes_and_window(tokens, processes)
        if self.lanes:
            lanes = -(-self.lanes // processes) * processes
        window = self.window or window
        minutes, steps = self.minutes or math.inf, self.steps or math.inf
        if not self.minutes and not self.steps:
            epochs = PERSONAL_EPOCHS if self.base else EPOCHS
            minutes, steps = MINUTES, math.ceil(epochs * tokens / (lanes * window))
        usual = Recipe()
        return Recipe(
            minutes=minutes,
            steps=steps,
            lanes=lanes,
            window=window,
            fuse=self.fuse,
            matrix_learning_rate=usual.matrix_learning_rate * (MATRIX_SHARE if self.base else 1),
            vector_learning_rate=usual.vector_learning_rate * (VECTOR_SHARE if self.base else 1),
            decay_from=PERSONAL_DECAY if self.base else usual.decay_from,
            warmup_steps=int(min(usual.warmup_steps, steps // 10 + 1)),
            seed=self.seed,
            checkpoint_seconds=self.checkpoint_seconds,
            patience=self.patience,
        )
