"""Measure a model's bits per byte by domain: through the whole pipeline, and the network alone, exact and float.

    python scripts/evaluate.py heldout/ --limit 60000 [--model FILE] [--float runs/default/checkpoint.pt]

Prints a Markdown table. A domain is the part of a file's name before the first underscore.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from llmzip import lanes, models
from llmzip.engine import Engine
from llmzip.training.corpus import documents, text_files
from llmzip.training.trainer import load_model, nats_of

LANES = 16


def exact_bits(engine: Engine, data: bytes) -> float:
    """Return what the exact network alone would pay for `data`: -log2 of each token's frequency over the total."""
    grid = lanes.cut(engine.tokenizer.encode(data), LANES)
    session = engine.session(LANES)
    inputs = lanes.inputs_of(grid, engine.begin)
    head, starts, bits = engine.head, engine.tree.starts, 0.0
    unit = math.log(2) / 4096

    def log_probability(acc: np.ndarray, scale: np.ndarray, scales: np.ndarray, chosen: int) -> float:
        logits = np.rint(acc.astype(np.float32) * scale * scales) * unit
        logits -= logits.max()
        return float(logits[chosen] - np.log(np.exp(logits).sum()))

    for at in range(0, len(grid), 16):
        seen = session.run(inputs[at : at + 16])
        for t, b in zip(*np.nonzero(grid[at : at + 16] >= 0), strict=True):
            token, scale = int(grid[at + t, b]), seen.scale[t, b]
            cluster = int(engine.tree.cluster_of[token])
            first, end = int(starts[cluster]), int(starts[cluster + 1])
            nats = log_probability(seen.cluster_acc[t, b], scale, head.cluster_scales, cluster)
            if end - first > 1:
                acc = head.weights[first:end].astype(np.int32) @ seen.hidden[t, b].astype(np.int32)
                nats += log_probability(acc, scale, head.token_scales[first:end], token - first)
            bits -= nats / math.log(2)
    return bits


def main() -> None:
    """Measure every file and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--model", default=models.DEFAULT)
    parser.add_argument("--float", type=Path, dest="checkpoint", help="checkpoint of the same model")
    parser.add_argument("--limit", type=int, default=1 << 62, help="bytes of each file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    engine = Engine(models.load(args.model), threads=2)
    network = load_model(args.checkpoint) if args.checkpoint else None
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(4))
    for path in text_files(args.paths):
        data = b"".join(documents(path))[: args.limit]
        coded = engine.encode(data)
        row = [len(data), 8 * len(coded.payload) if coded else 8 * len(data), exact_bits(engine, data), 0.0]
        if network:
            row[3] = nats_of(network, engine.tokenizer.encode(data), LANES) / math.log(2)
        sums[path.stem.split("_")[0]] += row
        sums["all"] += row
    print("| domain | bytes | llmzip | exact network alone | float network alone |\n|---|---|---|---|---|")
    for domain, (size, *bits) in sums.items():
        cells = [f"{b / size:.4f}" if b else "" for b in bits]
        print(f"| {domain} | {size:.0f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
