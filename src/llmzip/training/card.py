"""The model card: what a model was trained on, how, and how good it is."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from llmzip.api.remote import without_secrets
from llmzip.coding.token_coder import TokenCoder
from llmzip.model.file import Model
from llmzip.tools.token_probabilities import exact_bits
from llmzip.training.evaluation import Heldout
from llmzip.training.model import LanguageModel
from llmzip.training.survey import Survey, listed
from llmzip.training.trainer import Trainer

ARCHITECTURES = {
    "gated": "Gated linear recurrence",
    "lstm": "Long short-term memory",
    "gru": "Gated recurrent unit",
    "transformer": "Transformer",
}

PERSONALISED = "The network is {} of the way from the initial weights to the trained ones.\n"
LEFT_OUT = "Left out: {}.\n"
DICTIONARY = "**{} bytes of the text are part of the model, word for word.** Frames find repeats in them.\n"
MIXER_RETRAINED = "The initial state of the mixer was trained on the same text, which favours the whole pipeline.\n"


@dataclass(frozen=True)
class Measured:
    """A domain's size in bytes, and bits: of whole archives, of the exact and of the float network alone."""

    size: int
    archive: float
    exact: float
    floating: float

    def summary(self) -> str:
        """Return the bits per byte in words."""
        return f"held out {self.archive / self.size:.3f} bits/byte, network alone {self.exact / self.size:.3f}"

    def row(self, domain: str) -> str:
        """Return a row of the table."""
        cells = (self.archive, self.exact, self.floating)
        return f"| {domain} | {self.size} | " + " | ".join(f"{bits / self.size:.4f}" for bits in cells) + " |"


def measure(model: Model, network: LanguageModel, heldout: Heldout) -> dict[str, Measured]:
    """Measure a model and its float network on held-out texts by domain; "all" is their sum."""
    token_coder = TokenCoder(model)
    floating = heldout.bits(network)
    result = {}
    for domain, text in heldout.texts.items():
        coded = token_coder.encode(text)
        archive = 8 * (len(coded.payload) if coded else len(text))
        result[domain] = Measured(
            len(text), archive, exact_bits(token_coder, text, heldout.lanes[domain]), floating[domain]
        )
    every = list(result.values())
    result["all"] = Measured(*(sum(getattr(m, key) for m in every) for key in ("size", "archive", "exact", "floating")))
    return result


@dataclass(frozen=True)
class Facts:
    """What the card is made of."""

    model: Path
    text: Survey
    trainer: Trainer
    measured: Mapping[str, Measured]
    alpha: float | None  # how far the network went from where it began to the trained one, if personalised
    dictionary: int  # bytes of the text that the model holds
    mixer_retrained: bool  # its initial state, on the held-out text

    def markdown(self) -> str:
        """Return the card as Markdown."""
        t, config, recipe = self.trainer, self.trainer.model.config, self.trainer.recipe
        data = self.model.read_bytes()
        total = int(self.text.sizes.sum())
        left_out = LEFT_OUT.format(listed(self.text.tally.left_out)) if self.text.tally.left_out else ""
        rows = "\n".join(m.row(domain) for domain, m in self.measured.items())
        return f"""---
tags: [text-compression, lossless, recurrent, int8]
---

# Model `{self.model.stem}`

`{self.model.name}`, {len(data)} bytes, made on {date.today().isoformat()},
SHA-256 `{hashlib.sha256(data).hexdigest()}`.
Archives made with it name it and need exactly this file: `llmzip compress -m {self.model.name} FILE`.

## Architecture

{ARCHITECTURES[config.arch]}, width {config.width}, {config.layers} layers, hidden {config.hidden}:
{config.body_multiply_adds / 1e6:.2f} M multiply-adds per token in the body.
{config.vocab} tokens in {config.clusters} clusters.

## Data

{len(self.text.files)} files ({listed(self.text.tally.kinds)}), {len(self.text.sizes)} documents, {total} bytes,
of which {total - self.text.train_bytes} bytes were held out.
{left_out}{DICTIONARY.format(self.dictionary) if self.dictionary else ""}
## Training

    {shlex.join(["llmzip", *map(without_secrets, sys.argv[1:])])}

{t.step} steps of {recipe.lanes} x {recipe.window} tokens, {t.tokens} tokens in all, {t.elapsed / 60:.1f} minutes
({t.cpu_seconds / 60:.1f} processor minutes of the first process),
{t.workers.count} x {t.workers.device.type}, {platform.machine()}.
{PERSONALISED.format(self.alpha) if self.alpha else ""}
## Quality

Bits per byte of held-out text: the whole pipeline, and the network alone, exact and float.
{MIXER_RETRAINED if self.mixer_retrained else ""}
| domain | bytes | llmzip | exact network | float network |
|---|---|---|---|---|
{rows}
"""
