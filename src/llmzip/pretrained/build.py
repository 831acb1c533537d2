"""Build the exact model file of a published model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from llmzip.coding.progress import Progress
from llmzip.errors import ModelError
from llmzip.mixing.initial_state import InitialState
from llmzip.model import registry
from llmzip.model.file import Model, dump
from llmzip.pretrained import gguf, huggingface
from llmzip.pretrained.convert import CLUSTERS, convert, vocabulary
from llmzip.pretrained.source import Source
from llmzip.tools import selftest
from llmzip.vocabulary.tokenizer import Tokenizer
from llmzip.vocabulary.tree import DecisionTree, choose_clusters

INITIAL_STATE = "published.safetensors"  # beside the shipped models: the mixer's for all published ones


def read(path: Path) -> Source:
    """Return the published model in a GGUF file or a Hugging Face folder; raises ModelError."""
    if path.is_dir():
        return huggingface.read(path)
    if not path.is_file():
        raise ModelError("there is no such file or folder (give a GGUF file, or a Hugging Face folder)")
    return gguf.read(path)


def build(source: Source, progress: Progress | None = None) -> bytes:
    """Return the bytes of the model file for `source`: the same on every machine.

    `progress` is called with the number of layers done since the last call. Raises ModelError where the model cannot
    be imported.
    """
    initial_state = InitialState.from_tensors(load((registry.shipped_folder() / INITIAL_STATE).read_bytes()))
    tokens, rows, ranks = vocabulary(source)
    starts = choose_clusters(DecisionTree.build(tokens), np.ones(len(tokens)), min(CLUSTERS, len(tokens)))
    weights = convert(source, rows, starts, progress)
    tokenizer = Tokenizer(tokens, ranks, source.splitting)
    info: dict[str, Any] = {
        "name": source.title,
        "license": source.licence,
        "source_sha256": source.sha256,
    }
    model = Model(weights, tokenizer, b"", info, initial_state)
    return dump(weights, tokenizer, info | {"selftest": selftest.make(model)}, initial_state)


def card(source: Source, origin: str, data: bytes, measured: str) -> str:
    """Return the model card of an imported model as Markdown; `measured` is a part of it on its quality."""
    return f"""# Model `{source.title or "unnamed"}`

{len(data)} bytes, SHA-256 `{hashlib.sha256(data).hexdigest()}`, imported from `{origin}`
(SHA-256 `{source.sha256}`), licence: {source.licence or "see its source"}.

Llama-type network of {source.layers} layers, width {source.width}, {source.heads} heads of {source.head_width}
({source.kv_heads} of keys and values), hidden {source.hidden}, {sum(token is not None for token in source.tokens)}
tokens. Weights are int8 with a scale for each row, activations int8 with a scale for each token, on channels turned
by Hadamard matrices; keys and values are int8.

{measured}"""
