"""What held-out text costs, by the float network and by the exact one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from networks import tiny_model, tiny_tokenizer
from reference_loss import naive_losses
from texts import WORDS

from llmzip.coding.lanes import cut
from llmzip.coding.token_coder import TokenCoder
from llmzip.tools.token_probabilities import exact_bits
from llmzip.training.evaluation import Heldout, nats_of
from llmzip.training.export import LOGIT_UNIT
from llmzip.training.model import LanguageModel

pytestmark = pytest.mark.usefixtures("one_thread")


def naive_nats(model: LanguageModel, tokens: np.ndarray) -> float:
    """Return what one lane costs, token by token."""
    targets = torch.from_numpy(tokens.astype(np.int64))
    inputs = torch.cat([torch.tensor([model.bos]), targets[:-1]])[:, None]
    hidden, _ = model(inputs, model.initial_state(1))
    head = model.head_cluster, model.head_token, targets, model.cluster_starts
    return float(naive_losses(hidden[:, 0], *head).sum())


@torch.no_grad()
@pytest.mark.parametrize("lanes", [1, 3, 16])
def test_nats_are_those_of_the_probabilities_lane_by_lane(lanes: int) -> None:
    # 300 steps in one lane are more than it runs at once.
    model, tokens = tiny_model(), np.random.default_rng(0).integers(0, 256, 300).astype(np.int32)
    expected = sum(naive_nats(model, lane[lane >= 0]) for lane in cut(tokens, lanes).T)
    assert nats_of(model, tokens, lanes) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_heldout_bits_are_those_of_each_domain() -> None:
    tokenizer, model = tiny_tokenizer(), tiny_model()
    heldout = Heldout(tokenizer, {"one": [WORDS, WORDS[:50]], "two": [b"x"]})
    expected = {
        "one": naive_nats(model, tokenizer.encode(WORDS + WORDS[:50])),
        "two": naive_nats(model, tokenizer.encode(b"x")),
    }
    bits = heldout.bits(model)
    assert list(bits) == ["one", "two"]
    for domain, nats in expected.items():
        assert bits[domain] == pytest.approx(nats / math.log(2), rel=1e-5)
    assert heldout.bits_per_byte(model) == pytest.approx(sum(bits.values()) / (len(WORDS) + 51))


def test_exact_bits_are_what_the_coder_pays_without_the_adaptive_stage(tiny) -> None:
    token_coder, text = TokenCoder(tiny), WORDS * 4
    grid = cut(token_coder.tokenizer.encode(text), 3)
    inputs = np.vstack([np.full((1, 3), token_coder.bos, np.int32), np.maximum(grid[:-1], 0)])
    seen, head, starts = token_coder.session(3).run(inputs), token_coder.head, token_coder.tree.starts
    nats = 0.0
    for t, b in zip(*np.nonzero(grid >= 0), strict=True):
        token, scale = int(grid[t, b]), seen.scale[t, b]
        cluster = int(token_coder.tree.cluster_of[token])
        members = slice(int(starts[cluster]), int(starts[cluster + 1]))
        first = torch.from_numpy(seen.cluster_acc[t, b] * scale * head.cluster_scales).double() / LOGIT_UNIT
        acc = head.weights[members].astype(np.int64) @ seen.hidden[t, b].astype(np.int64)
        second = torch.from_numpy(acc * scale * head.token_scales[members]).double() / LOGIT_UNIT
        nats -= float(first.log_softmax(0)[cluster] + second.log_softmax(0)[token - members.start])
    assert exact_bits(token_coder, text, 3) == pytest.approx(nats / math.log(2), rel=1e-4)
