"""Measure a model's bits per byte by domain: through the whole pipeline, and the network alone, exact and float.

    python scripts/evaluate.py heldout/ --limit 60000 [--model FILE] [--float MODEL.train/best.pt]

Prints a Markdown table. A domain is the part of a file's name before the first underscore.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from llmzip.coding.token_coder import TokenCoder
from llmzip.model import registry
from llmzip.tools.token_probabilities import exact_bits
from llmzip.training.documents import domain_of, readable_texts
from llmzip.training.evaluation import nats_of
from llmzip.training.trainer import load_model

LANES = 16


def main() -> None:
    """Measure every file and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--model", default=registry.DEFAULT)
    parser.add_argument("--float", type=Path, dest="checkpoint", help="checkpoint of the same model")
    parser.add_argument("--limit", type=int, default=1 << 62, help="bytes of each file")
    parser.add_argument("--field", help="of JSON lines, else they are text; of Parquet files, else text")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    token_coder = TokenCoder(registry.load(args.model), threads=args.threads)
    network = load_model(args.checkpoint) if args.checkpoint else None
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(4))
    for path, text in readable_texts(args.paths, args.field):
        data = text[: args.limit]
        coded = token_coder.encode(data)
        row = [len(data), 8 * len(coded.payload) if coded else 8 * len(data), exact_bits(token_coder, data, LANES), 0.0]
        if network:
            row[3] = nats_of(network, token_coder.tokenizer.encode(data), LANES) / math.log(2)
        sums[domain_of(path)] += row
        sums["all"] += row
    sums["all"] = sums.pop("all")
    print("| domain | bytes | llmzip | exact network alone | float network alone |\n|---|---|---|---|---|")
    for domain, (size, *bits) in sums.items():
        cells = [f"{b / size:.4f}" if b else "" for b in bits]
        print(f"| {domain} | {size:.0f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
