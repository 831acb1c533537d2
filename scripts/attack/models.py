"""Hostile models: files that are sound safetensors and hold what no training makes."""

from __future__ import annotations

import json
import random

import numpy as np
from archives import TEXT, hostile_number
from findings import Findings, judged
from safetensors.numpy import load, save

from llmzip.coding.token_coder import TokenCoder
from llmzip.model import file as model_file
from llmzip.model import registry


def mutated_model(rng: random.Random, data: bytes) -> bytes:
    """Return a model file with hostile tensors or a hostile description."""
    tensors = load(data)
    size = int.from_bytes(data[:8], "little")
    info = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["llmzip"])
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(sorted(tensors))
        tensor = tensors[name].copy()
        kind = rng.randrange(6)
        if kind == 0 and tensor.size:
            flat = tensor.reshape(-1).view(np.uint8)
            for _ in range(rng.choice((1, 5, 50))):
                flat[rng.randrange(len(flat))] = rng.randrange(256)
        elif kind == 1:
            tensor = tensor[: rng.randrange(len(tensor) + 1)]
        elif kind == 2:
            tensor = tensor.astype(rng.choice((np.uint8, np.int16, np.int32, np.float32, np.int64)))
        elif kind == 3:
            tensor = np.concatenate([tensor, tensor])
        elif kind == 4 and tensor.size:
            extremes = np.iinfo if tensor.dtype.kind in "iu" else np.finfo
            tensor[...] = rng.choice((extremes(tensor.dtype).min, extremes(tensor.dtype).max, 0))
        else:
            key = rng.choice(sorted(info))
            info[key] = rng.choice((hostile_number(rng, 5), -1, "gru", "lstm", "transformer", None, [], 1.5))
        tensors[name] = np.ascontiguousarray(tensor)
    return save(tensors, {"llmzip": json.dumps(info)})


def attack_models(count: int, seed: int) -> bool:
    """Load hostile models and, where that succeeds, compress and decompress with them."""
    rng, findings = random.Random(seed), Findings()
    data = registry.locate("default").read_bytes()

    def use(hostile: bytes) -> bytes:
        token_coder = TokenCoder(model_file.parse(hostile))
        text = TEXT[:300]
        coded = token_coder.encode(text, lane_count=2, capacity=1 << 16)
        return text if coded is None else token_coder.decode(coded.payload, coded.lane_bytes)

    for i in range(count):
        hostile = mutated_model(rng, data)
        judged(findings, lambda hostile=hostile: use(hostile), TEXT[:300], f"seed {seed}, model {i}")
    return findings.print("hostile models")
