"""Start values: what the mixer knows before it has seen anything of a file.

Weights and the probabilities that follow bit histories, trained on text by ``scripts/train_mixer.py``. They are part
of a model's file, as tensors ``mixer.*``; those for frames without a language model are a file of their own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmzip import models
from llmzip.counters import LIMIT, STATES, history_tables, squash_table
from llmzip.errors import ModelError
from llmzip.history import MATCH_STATES
from llmzip.memory import CONTEXTS, MATCHES

# Contexts, by number: the decision with the likeliest token (alone, if there is no model), with the lane's last 1 .. 3;
# those made of bytes, at their end the ones that a walk over single bytes does without: its decision with the last
# bytes is a context of tokens there, and what it learns near by is worth little (docs/experiments.md).
TOKEN_CONTEXTS = 4
BYTE_CONTEXTS = CONTEXTS - TOKEN_CONTEXTS

# Inputs of the mixer: a constant, two for each match model, two for each context, the language model's four.
MATCH_INPUTS = 1
CONTEXT_INPUTS = MATCH_INPUTS + 2 * MATCHES
INPUTS = 48  # whole vectors
INPUTS_OF_BYTES = 32  # those in use without a language model
MODEL_INPUTS = INPUTS - 4

# Sets of weights and what chooses among them: the best match and the model's probability; the bits known of the byte;
# how many contexts know something and the model's probability; the last byte; and, with a model only, the last token
# and the likeliest next one. Each set has its range of numbers.
SELECTORS = 6
SELECTORS_WITHOUT_MODEL = 4
SET_STARTS = (0, 256, 768, 1024, 1536, 2048)
SETS = 2304
FINAL_SETS = 512
WEIGHT_BITS = 16  # after the point of a weight in use; STORED_BITS of a stored one
STORED_BITS = 12

MAP_ENTRIES = 17  # at stretched probabilities 512 apart
MODEL_MAPS = 2  # of the model's probability, by the history of a context

NONE = "none.safetensors"  # beside the shipped models


@dataclass(frozen=True)
class Start:
    """Hold start values, as they are stored.

    Attributes:
        weights: int16[SETS, INPUTS], 12 bits after the point.
        final_weights: int16[FINAL_SETS, SELECTORS], likewise.
        histories: uint16[CONTEXTS, STATES], the probability of bit 1 after each bit history of each context.
        matches: uint16[MATCHES, MATCH_STATES], the probability that the expected bit comes.
        model_maps: uint16[MODEL_MAPS * STATES, MAP_ENTRIES], what the model's probability really means.
    """

    weights: npt.NDArray[np.int16]
    final_weights: npt.NDArray[np.int16]
    histories: npt.NDArray[np.uint16]
    matches: npt.NDArray[np.uint16]
    model_maps: npt.NDArray[np.uint16]

    @classmethod
    def untrained(cls, *, model: bool) -> Start:
        """Return plausible values from formulas, for frames with or without a language model."""
        weights = np.zeros((SETS, INPUTS), np.int16)
        weights[:, CONTEXT_INPUTS:MODEL_INPUTS:2] = 400 if model else 1000
        weights[:, MATCH_INPUTS:CONTEXT_INPUTS] = 800
        weights[:, MODEL_INPUTS:] = 700 if model else 0
        identity = squash_table()[np.clip((np.arange(MAP_ENTRIES) << 9) - LIMIT - 1, -LIMIT, LIMIT) + LIMIT]
        return cls(
            weights,
            np.full((FINAL_SETS, SELECTORS), 4096 // (SELECTORS if model else SELECTORS_WITHOUT_MODEL), np.int16),
            np.repeat((history_tables()[1] >> 16).astype(np.uint16)[None], CONTEXTS, axis=0),
            np.full((MATCHES, MATCH_STATES), 3 << 14, np.uint16),
            np.repeat(identity.astype(np.uint16)[None], MODEL_MAPS * STATES, axis=0),
        )

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the values under the names of a model file."""
        return {f"mixer.{name}": value for name, value in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, npt.NDArray[np.generic]]) -> Start:
        """Take the values from a model file; raises ModelError if they are not what :meth:`tensors` gives."""
        like = vars(cls.untrained(model=True))
        values = {}
        for name, example in like.items():
            value = tensors.get(f"mixer.{name}")
            if value is None or value.shape != example.shape or value.dtype != example.dtype:
                raise ModelError(f"the model's mixer.{name} is missing or has the wrong shape or type")
            values[name] = value
        return cls(**values)


def for_bytes() -> tuple[Start, bytes]:
    """Return the start values for frames without a language model, and their identity, 32 bytes.

    Raises ModelError if the package's file is damaged: its checksums would blame the archives.
    """
    from safetensors.numpy import load

    data = (models.shipped_folder() / NONE).read_bytes()
    digest = hashlib.sha256(data)
    if digest.hexdigest() != models.NONE_SHIPPED:
        raise ModelError(f"{NONE} is not the one of this version: the installation is damaged (install llmzip again)")
    return Start.from_tensors(load(data)), digest.digest()
