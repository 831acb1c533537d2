"""Compare recipes for the shipped model at equal time of the processor, with a short and a long budget.

    python scripts/compare_recipes.py CORPUS HELDOUT WORK [--short 4] [--long 12] [--jobs 2] [VARIANT...]

Each variant is trained on one thread; the short run branches off the long one before its rate falls. A model is judged
by what HELDOUT's files cost through the whole pipeline, with the initial state of the shipped model. WORK keeps
vocabularies and results: what is there is not done again. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from llmzip.coding.token_coder import TokenCoder
from llmzip.model import registry
from llmzip.model.file import Model, dump
from llmzip.training.build import cluster_starts, load_tokenizer, make_vocabulary
from llmzip.training.corpus import Packed, pack
from llmzip.training.documents import domain_of, readable_texts
from llmzip.training.evaluation import nats_of
from llmzip.training.export import export
from llmzip.training.model import LanguageModel, ModelConfig
from llmzip.training.recipe import Recipe, piece_bytes_for
from llmzip.training.survey import survey
from llmzip.training.trainer import CHECKPOINT, Trainer
from llmzip.vocabulary.tokenizer import Tokenizer

LANES = 4  # the held-out pieces are short
DOMAINS = ("books", "wiki", "code", "zh")  # the others together are the last column


@dataclass(frozen=True)
class Variant:
    """What a run does differently from the first variant."""

    vocab: int = 24576
    shape: dict[str, int] = field(default_factory=dict)  # of ModelConfig
    recipe: dict[str, float] = field(default_factory=dict)  # of Recipe
    seed: int = 1
    books: int = 1  # how often they are dealt
    pairs: int = 0  # rows of a table of hashed pairs of tokens


# What the others are compared with: the recipe of the model with number 3.
AS_SHIPPED = {"lanes": 32, "matrix_learning_rate": 0.02, "decay_from": 0.5}
VARIANTS = {
    "as shipped": Variant(),
    "another seed": Variant(seed=2),
    "16,384 tokens": Variant(vocab=16384),
    "32,768 tokens": Variant(vocab=32768),
    "49,152 tokens": Variant(vocab=49152),
    "512 clusters": Variant(shape={"clusters": 512}),
    "width 320, 4 layers, hidden 1280": Variant(shape={"width": 320, "layers": 4, "hidden": 1280}),
    "width 192, 10 layers, hidden 768": Variant(shape={"width": 192, "layers": 10, "hidden": 768}),
    "32,768 tokens, width 192, 10 layers, hidden 768": Variant(
        vocab=32768, shape={"width": 192, "layers": 10, "hidden": 768}
    ),
    "memory to 2,400 tokens, windows of 256": Variant(
        shape={"longest_memory": 2400}, recipe={"lanes": 16, "window": 256}
    ),
    "matrices' rate 0.01": Variant(recipe={"matrix_learning_rate": 0.01}),
    "matrices' rate 0.04": Variant(recipe={"matrix_learning_rate": 0.04}),
    "vectors' rate 0.008": Variant(recipe={"vector_learning_rate": 0.008}),
    "steps of 8,192 tokens": Variant(recipe={"lanes": 64}),
    "rate falls from 15 % on": Variant(recipe={"decay_from": 0.15}),
    "books twice": Variant(books=2),
    "16,384 tokens, 57,344 hashed pairs": Variant(vocab=16384, pairs=57344),
}


class PairModel(LanguageModel):
    """Add to each token's embedding one for the hash of the token and the one before it (float only)."""

    WIDTH = 64

    def __init__(self, config: ModelConfig, cluster_starts: torch.Tensor, rows: int):
        super().__init__(config, cluster_starts)
        self.pairs = nn.Embedding(rows, self.WIDTH)
        self.widen = nn.Linear(self.WIDTH, config.width, bias=False)
        nn.init.normal_(self.pairs.weight, std=0.5)
        nn.init.normal_(self.widen.weight, std=0.7 / math.sqrt(self.WIDTH))
        token_embedding = self.embedding.forward

        def embed(ids: torch.Tensor) -> torch.Tensor:
            before = torch.cat([torch.full_like(ids[:1], self.bos), ids[:-1]])  # at a window's start it is unknown
            rows_of = (ids * 40503 + before * 30011) % self.pairs.num_embeddings
            return token_embedding(ids) + self.widen(self.pairs(rows_of))

        self.embedding.forward = embed  # type: ignore[method-assign]


class TimedTrainer(Trainer):
    """Take the budget from the time of the processor, so that runs beside each other compare."""

    @property
    def used(self) -> float:
        """Return the share of the budget that is used now."""
        return self.cpu_seconds / (60 * self.recipe.minutes)


def vocabulary(corpus: Path, work: Path, vocab: int) -> Path:
    """Return the file of a vocabulary."""
    path = work / f"vocabulary-{vocab}.npz"
    if not path.exists():
        make_vocabulary(survey([corpus], seed=1), vocab, path)
    return path


def packed(corpus: Path, work: Path, tokenizer: Tokenizer, books: int) -> Packed:
    """Return the corpus in tokens, with its books `books` times."""
    folder = work / f"tokens-{tokenizer.size}-{books}"
    if not (folder / "pieces.npy").exists():
        folder.mkdir(exist_ok=True)
        text = survey([corpus, *sorted(corpus.rglob("books_*")) * (books - 1)], seed=1)
        pack(tokenizer, text.training_texts(), folder, piece_bytes_for(text.train_bytes), seed=1)
    return Packed(folder)


def untrained(variant: Variant, tokenizer: Tokenizer, text: Packed) -> LanguageModel:
    """Return a variant's network before training."""
    config = replace(ModelConfig(tokenizer.size), **variant.shape)
    starts = cluster_starts(tokenizer, text, config.clusters)
    torch.manual_seed(variant.seed)
    return PairModel(config, starts, variant.pairs) if variant.pairs else LanguageModel(config, starts)


def judge(model: LanguageModel, tokenizer: Tokenizer, texts: dict[str, list[bytes]]) -> dict[str, Any]:
    """Return bits per byte of the float network, and through the whole pipeline by domain."""
    sizes = {domain: sum(map(len, parts)) for domain, parts in texts.items()}
    everything = [data for parts in texts.values() for data in parts]
    nats = sum(nats_of(model, tokenizer.encode(data), LANES) for data in everything)
    exact = Model(export(model), tokenizer, b"", {}, registry.load(registry.DEFAULT).initial_state)
    size = len(dump(exact.weights, tokenizer, {}, exact.initial_state))
    result: dict[str, Any] = {"network": nats / math.log(2) / sum(sizes.values()), "size": size}
    if isinstance(model, PairModel):  # exact inference does not know it; 7 bits for each weight
        return result | {"size": size + 7 * (model.pairs.weight.numel() + model.widen.weight.numel()) // 8}
    token_coder = TokenCoder(exact, threads=1)
    bits = {
        domain: sum(8 * len(coded.payload if (coded := token_coder.encode(data)) else data) for data in parts)
        for domain, parts in texts.items()
    }
    result |= {domain: bits[domain] / sizes[domain] for domain in texts}
    return result | {"all": sum(bits.values()) / sum(sizes.values())}


def heldout_texts(paths: list[Path], limit: int) -> dict[str, list[bytes]]:
    """Return the first `limit` bytes of each file, by domain."""
    texts: dict[str, list[bytes]] = defaultdict(list)
    for path, text in readable_texts(paths):
        domain = domain_of(path)
        texts[domain if domain in DOMAINS else "other"].append(text[:limit])
    return {domain: texts[domain] for domain in (*DOMAINS, "other") if domain in texts}


def compare(name: str, args: argparse.Namespace) -> None:
    """Train one variant with both budgets and keep what it reached."""
    variant, folder = VARIANTS[name], args.work / name.replace(" ", "-")
    if (folder / "long.json").exists():
        return
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(vocabulary(args.corpus, args.work, variant.vocab))
    text = packed(args.corpus, args.work, tokenizer, variant.books)
    run = Recipe(minutes=args.long, fuse=True, seed=variant.seed, checkpoint_seconds=math.inf)
    recipe = replace(run, **AS_SHIPPED | variant.recipe)
    lengths = np.diff(tokenizer.offsets)

    def trainer(where: str, recipe: Recipe) -> TimedTrainer:
        return TimedTrainer(untrained(variant, tokenizer, text), text, recipe, folder / where, lengths)

    trainer("compiling", recipe).train_step()  # what it takes to compile is not theirs
    texts = heldout_texts([args.heldout], args.limit)

    def finish(run: TimedTrainer, budget: str) -> None:
        torch.save(run.model.state_dict(), folder / f"{budget}.pt")
        reached = {"tokens": run.tokens, "minutes": run.cpu_seconds / 60} | judge(run.model, tokenizer, texts)
        (folder / f"{budget}.json").write_text(json.dumps(reached))

    long = trainer("long", recipe)
    branch = recipe.decay_from * args.short * 60  # in seconds: until there both runs are one
    long.run(stop=lambda: long.cpu_seconds >= branch)
    short = trainer("short", replace(recipe, minutes=args.short))
    shutil.copy(folder / "long" / CHECKPOINT, folder / "short")
    short.resume()
    short.run()
    finish(short, "short")
    long.run()
    finish(long, "long")


def table(names: list[str], work: Path) -> None:
    """Print what is there."""
    columns = ("network", "all", *DOMAINS, "other")
    print("| | minutes | 10^6 tokens | MB | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 4))
    for name in names:
        for budget in ("short", "long"):
            path = work / name.replace(" ", "-") / f"{budget}.json"
            if path.exists():
                row = json.loads(path.read_text())
                cells = [f"{row[c]:.4f}" if c in row else "" for c in columns]
                cells = [f"{row['minutes']:.1f}", f"{row['tokens'] / 1e6:.2f}", f"{row['size'] / 1e6:.1f}", *cells]
                print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("heldout", type=Path)
    parser.add_argument("work", type=Path)
    known = "; ".join(VARIANTS).replace("%", "%%")  # argparse formats help texts
    parser.add_argument("names", nargs="*", metavar="VARIANT", help=f"all, if none is named: {known}")
    parser.add_argument("--short", type=float, default=4, help="minutes of the processor")
    parser.add_argument("--long", type=float, default=12)
    parser.add_argument("--limit", type=int, default=10000, help="bytes of each held-out file")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    names = args.names or list(VARIANTS)
    args.work.mkdir(parents=True, exist_ok=True)
    settings = args.work / "settings.json"
    asked = {key: str(getattr(args, key)) for key in ("corpus", "heldout", "short", "long", "limit")}
    if settings.exists() and json.loads(settings.read_text()) != asked:
        raise SystemExit(f"{args.work} holds results of other settings: {settings.read_text()}")
    settings.write_text(json.dumps(asked))
    for vocab, books in {(VARIANTS[name].vocab, VARIANTS[name].books) for name in names}:
        packed(args.corpus, args.work, load_tokenizer(vocabulary(args.corpus, args.work, vocab)), books)
    # One process for each: what torch.compile has compiled for one variant's shapes is of no use to the next.
    with ProcessPoolExecutor(args.jobs, get_context("spawn"), max_tasks_per_child=1) as pool:
        for done in [pool.submit(compare, name, args) for name in names]:
            done.result()
    table(names, args.work)


if __name__ == "__main__":
    main()
