"""Train the default model from folders of text: tokenizer, packing, clusters, training, export, evaluation.

    python scripts/train_default.py --work runs/default --minutes 90 --heldout corpus/heldout \
        corpus/train-0 corpus/train-1

Every step writes into the work folder and is skipped when its result is there, so that an interrupted run
goes on.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from llmzip.model import LanguageModel, ModelConfig
from llmzip.modelfile import dump
from llmzip.tokenizer import Tokenizer
from llmzip.training.bpe import train_bpe
from llmzip.training.corpus import Packed, documents, pack, text_files
from llmzip.training.export import export
from llmzip.training.trainer import Recipe, Trainer, bits_per_byte
from llmzip.tree import DecisionTree, choose_clusters


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a vocabulary saved by :func:`make_tokenizer`."""
    stored = np.load(path)
    blob, offsets = stored["blob"].tobytes(), stored["offsets"].tolist()
    return Tokenizer([blob[a:b] for a, b in pairwise(offsets)], stored["ranks"])


def make_tokenizer(files: list[Path], vocab: int, share: float, path: Path) -> None:
    """Train byte-level BPE on the first `share` of every file."""

    def sample():
        for file in files:
            taken, limit = 0, share * file.stat().st_size
            for document in documents(file):
                if taken >= limit:
                    break
                taken += len(document)
                yield document

    tokens, ranks = train_bpe(sample(), vocab)
    offsets = np.cumsum([0, *map(len, tokens)]).astype(np.int64)
    np.savez(path, blob=np.frombuffer(b"".join(tokens), np.uint8), offsets=offsets, ranks=ranks)


def main() -> None:
    """Run the steps that are not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+", type=Path, help="folders or files of text")
    parser.add_argument("--heldout", type=Path, required=True, help="folder of text kept from training")
    parser.add_argument("--work", type=Path, required=True, help="folder for the run")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--vocab", type=int, default=16384)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    args.work.mkdir(parents=True, exist_ok=True)
    files = text_files(args.corpus)

    vocabulary = args.work / "vocabulary.npz"
    if not vocabulary.exists():
        make_tokenizer(files, args.vocab, 0.12, vocabulary)
    tokenizer = load_tokenizer(vocabulary)
    if not (args.work / "pieces.npy").exists():
        pack(tokenizer, files, args.work)
    packed = Packed(args.work)

    config = ModelConfig(tokenizer.size, args.width, args.layers, args.hidden)
    tree = DecisionTree.build(tokenizer.tokens)
    counts = np.bincount(packed.tokens[:30_000_000], minlength=tokenizer.size) + 0.5
    starts = choose_clusters(tree, counts, config.clusters)
    model = LanguageModel(config, torch.from_numpy(starts.astype(np.int64)))
    trainer = Trainer(model, packed, Recipe(minutes=args.minutes), args.work)
    if (args.work / "checkpoint.pt").exists():
        trainer.resume()
    trainer.run()

    domains = bits_per_byte(model, tokenizer, text_files([args.heldout]))
    training = {
        "date": date.today().isoformat(),
        "minutes": round(trainer.elapsed / 60, 1),
        "cpu_minutes": round(trainer.cpu_seconds / 60, 1),
        "steps": trainer.step,
        "tokens": trainer.tokens,
        "heldout_bits_per_byte_float": domains,
    }
    info = {"name": "default", "licence": "Apache-2.0", "training": training}
    (args.work / "default.safetensors").write_bytes(dump(export(model), tokenizer, info))
    print(json.dumps(training, indent=1))


if __name__ == "__main__":
    main()
