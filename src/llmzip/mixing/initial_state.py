"""The pretrained initial state of the mixer, before the first byte of a file.

Weights and the probabilities that follow bit histories, trained on text by ``scripts/train_mixer.py``. They are part
of a model's file, as tensors ``mixer.*``; those for frames without a language model are a file of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmzip.errors import ModelError
from llmzip.mixing.bit_history import STATES, history_tables
from llmzip.mixing.layout import (
    APM_ENTRIES,
    CONTEXT_INPUTS,
    CONTEXTS,
    FINAL_WEIGHT_SETS,
    INPUTS,
    MATCH_INPUTS,
    MATCHES,
    MODEL_APMS,
    MODEL_INPUTS,
    SELECTORS,
    SELECTORS_WITHOUT_MODEL,
    WEIGHT_SETS,
)
from llmzip.mixing.logistic import LIMIT, squash_table
from llmzip.mixing.match import MATCH_STATES

# Tensors of a model file that have another name than the field.
TENSORS = {"model_apms": "model_maps"}


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: arrays are not comparable
class InitialState:
    """An initial state, as it is stored.

    Attributes:
        weights: int16[WEIGHT_SETS, INPUTS], 12 bits after the point.
        final_weights: int16[FINAL_WEIGHT_SETS, SELECTORS], 12 bits after the point.
        histories: uint16[CONTEXTS, STATES], the probability of bit 1 after each bit history of each context.
        matches: uint16[MATCHES, MATCH_STATES], the probability that the expected bit comes.
        model_apms: uint16[MODEL_APMS * STATES, APM_ENTRIES], APMs of the model's probability.
    """

    weights: npt.NDArray[np.int16]
    final_weights: npt.NDArray[np.int16]
    histories: npt.NDArray[np.uint16]
    matches: npt.NDArray[np.uint16]
    model_apms: npt.NDArray[np.uint16]

    @classmethod
    def untrained(cls, *, model: bool) -> InitialState:
        """Return an initial state from formulas, for frames with or without a language model."""
        weights = np.zeros((WEIGHT_SETS, INPUTS), np.int16)
        weights[:, CONTEXT_INPUTS:MODEL_INPUTS:2] = 400 if model else 1000
        weights[:, MATCH_INPUTS:CONTEXT_INPUTS] = 800
        weights[:, MODEL_INPUTS:] = 700 if model else 0
        identity = squash_table()[np.clip((np.arange(APM_ENTRIES) << 9) - LIMIT - 1, -LIMIT, LIMIT) + LIMIT]
        return cls(
            weights,
            np.full(
                (FINAL_WEIGHT_SETS, SELECTORS), 4096 // (SELECTORS if model else SELECTORS_WITHOUT_MODEL), np.int16
            ),
            np.repeat((history_tables()[1] >> 16).astype(np.uint16)[None], CONTEXTS, axis=0),
            np.full((MATCHES, MATCH_STATES), 3 << 14, np.uint16),
            np.repeat(identity.astype(np.uint16)[None], MODEL_APMS * STATES, axis=0),
        )

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the values under the names of a model file."""
        return {f"mixer.{TENSORS.get(name, name)}": value for name, value in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, npt.NDArray[np.generic]]) -> InitialState:
        """Take the values from a model file; raises ModelError if they are not what :meth:`tensors` gives."""
        like = vars(cls.untrained(model=True))
        values: dict[str, Any] = {}
        for name, example in like.items():
            value = tensors.get(f"mixer.{TENSORS.get(name, name)}")
            if value is None or value.shape != example.shape or value.dtype != example.dtype:
                raise ModelError(
                    f"the model's mixer.{TENSORS.get(name, name)} is missing or has the wrong shape or type"
                )
            values[name] = value
        return cls(**values)
