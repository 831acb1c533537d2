"""Build the exact model file of a published model."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmzip.mixing.initial_state import InitialState
from llmzip.model.file import Model, dump
from llmzip.pretrained.convert import CLUSTERS, convert, vocabulary
from llmzip.pretrained.source import Source
from llmzip.tools import selftest
from llmzip.vocabulary.tokenizer import Tokenizer
from llmzip.vocabulary.tree import DecisionTree, choose_clusters


def build(source: Source, initial_state: InitialState) -> bytes:
    """Return the bytes of the model file for `source`: the same on every machine.

    `initial_state` is the mixer's. Raises ModelError where the model cannot be imported.
    """
    tokens, rows, ranks = vocabulary(source)
    tree = DecisionTree.build(tokens)
    starts = choose_clusters(tree, np.ones(len(tokens)), min(CLUSTERS, len(tokens)))
    weights = convert(source, rows, starts)
    tokenizer = Tokenizer(tokens, ranks, source.splitting)
    info: dict[str, Any] = {
        "name": source.title,
        "license": source.licence,
        "source_sha256": source.sha256,
    }
    model = Model(weights, tokenizer, b"", info, initial_state)
    return dump(weights, tokenizer, info | {"selftest": selftest.make(model)}, initial_state)
