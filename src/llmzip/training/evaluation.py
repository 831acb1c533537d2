"""What a network, float or exact, pays for text that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from llmzip.coding.lanes import cut, inputs_of
from llmzip.training.loss import TwoLevelCrossEntropy
from llmzip.training.model import LanguageModel
from llmzip.vocabulary.tokenizer import Tokenizer

STEPS = 256  # run at once
TOKENS_PER_LANE = 1024  # fewer would measure cold starts


@torch.no_grad()
def nats_of(model: LanguageModel, ids: np.ndarray, lanes: int) -> float:
    """Return what the model pays for tokens ``[n]`` cut into `lanes` fresh lanes, in nats."""
    grid = cut(ids, lanes)
    device = model.embedding.weight.device
    inputs = torch.from_numpy(inputs_of(grid, model.bos)).to(device, torch.int64)
    targets = torch.from_numpy(grid).to(device, torch.int64)
    state, nats = model.initial_state(lanes), 0.0
    for at in range(0, len(grid), STEPS):
        hidden, state = model(inputs[at : at + STEPS], state)
        total, _ = TwoLevelCrossEntropy.apply(
            hidden.flatten(0, 1),
            model.head_cluster,
            model.head_token,
            targets[at : at + STEPS].flatten(),
            model.cluster_starts,
        )
        nats += float(total)
    return nats


class Heldout:
    """Held-out texts by domain, to measure float networks on."""

    def __init__(self, tokenizer: Tokenizer, texts: Mapping[str, Sequence[bytes]]):
        self.texts = {domain: b"".join(parts) for domain, parts in texts.items()}
        self._tokens = {domain: tokenizer.encode(text) for domain, text in self.texts.items()}
        self.lanes = {domain: max(1, min(16, len(ids) // TOKENS_PER_LANE)) for domain, ids in self._tokens.items()}

    def bits(self, model: LanguageModel) -> dict[str, float]:
        """Return the bits for each domain."""
        return {domain: nats_of(model, ids, self.lanes[domain]) / math.log(2) for domain, ids in self._tokens.items()}

    def bits_per_byte(self, model: LanguageModel) -> float:
        """Return the mean over all bytes."""
        return sum(self.bits(model).values()) / sum(map(len, self.texts.values()))
