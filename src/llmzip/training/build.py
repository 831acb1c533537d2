"""From text to a model file, step by step; each step's result is kept, so that an interrupted training goes on.

1. survey: which files and documents there are, and what is held out
2. vocabulary: byte-pair encoding
3. packing: text to tokens on the disk, cut into pieces
4. initialisation: an untrained network, or the one to personalise
5. training: forward pass, loss, backward pass, update (:mod:`llmzip.training.trainer`)
6. export: integers, the mixer's initial state, self-test, model card
"""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmzip.atomic_output import check_target, output_file
from llmzip.errors import FileError
from llmzip.model import registry
from llmzip.model.file import Model, dump, parse
from llmzip.tools import selftest
from llmzip.training import card, plot
from llmzip.training.adaptation import adapt
from llmzip.training.bpe import train_bpe
from llmzip.training.corpus import Packed, pack
from llmzip.training.evaluation import Heldout
from llmzip.training.export import between, export, restore
from llmzip.training.fetching import local_paths
from llmzip.training.fusion import require_compiler
from llmzip.training.mixer import retrained
from llmzip.training.model import LanguageModel
from llmzip.training.recipe import TOKENIZER_BYTES, config_for, piece_bytes_for
from llmzip.training.request import PERSONAL_ALPHA, Request
from llmzip.training.survey import Survey, size_in_words, survey
from llmzip.training.token_mixers import new_model
from llmzip.training.trainer import BEST, CHECKPOINT, METRICS, Trainer, load_model
from llmzip.training.workers import Workers
from llmzip.vocabulary.tokenizer import Tokenizer
from llmzip.vocabulary.tree import DecisionTree, choose_clusters

PLAN, VOCABULARY, TOKENS, PIECES, CURVE = "plan.json", "vocabulary.npz", "tokens.bin", "pieces.npy", "loss.png"
FETCHED = "fetched"  # the folder of what was behind URLs
Warn = Callable[[FileError], object]
COUNTED_TOKENS = 30_000_000  # are enough to know how often each token occurs


def build(request: Request, warn: Warn = lambda _: None) -> None:
    """Train as requested; raises FileError, ModelError and OSError for what is the user's to mend.

    `warn` is told of files that are skipped.
    """
    base = registry.load(request.base) if request.base else None
    if base and base.published:
        line = adapt(request, base, warn)
        if not request.quiet:
            print(f"adapted: {line}", file=sys.stderr)
        return
    workers = Workers.join(request.device)
    torch.set_num_threads(max(1, request.threads))
    try:
        _Build(request, workers, warn).run()
    finally:
        workers.leave()


class _Build:
    def __init__(self, request: Request, workers: Workers, warn: Warn):
        self.request, self.workers, self.warn, self.folder = request, workers, warn, request.folder

    def _say(self, text: str) -> None:
        if self.workers.leads and not self.request.quiet:
            print(text, file=sys.stderr, flush=True)

    def run(self) -> None:
        """Run all steps."""
        request = self.request
        check_target(str(request.output), source=None, force=request.force or request.resume)
        if request.fuse:
            require_compiler(self.workers.device)
        text = self._survey()
        shipped = registry.load(request.base) if request.base else None
        if self.workers.leads:
            self._prepare_folder(text, shipped)
        self.workers.wait()
        tokenizer = shipped.tokenizer if shipped else self._vocabulary(text)
        packed = self._packed(text, tokenizer)
        model = self._initialise(text, tokenizer, packed, shipped)
        heldout = Heldout(tokenizer, text.heldout_texts())
        trainer = self._train(tokenizer, packed, model, heldout)
        if self.workers.leads:
            self._export(text, tokenizer, packed, trainer, heldout)

    def _survey(self) -> Survey:
        request, fetched = self.request, self.folder / FETCHED
        if self.workers.leads:
            local_paths(request.paths, fetched, quiet=request.quiet, anew=request.force)
        self.workers.wait()
        paths = local_paths(request.paths, fetched, quiet=True)
        text = survey(paths, request.seed, (self.folder, request.output, request.card), request.field)
        if self.workers.leads:
            for fault in text.warnings():
                self.warn(fault)
        for line in text.summary():
            self._say(line)
        return text

    def _prepare_folder(self, text: Survey, shipped: Model | None) -> None:
        """Make the folder, or check that it holds this training."""
        request, folder = self.request, self.folder
        folder.mkdir(parents=True, exist_ok=True)
        if request.force:
            for name in (PLAN, VOCABULARY, TOKENS, PIECES, CHECKPOINT, BEST, METRICS, CURVE):
                (folder / name).unlink(missing_ok=True)
        plan: dict[str, Any] = {
            "text": text.fingerprint(),
            "shape": None if shipped else asdict(request.shape(text.train_bytes)),
            "from": shipped.digest.hex() if shipped else None,
            "seed": request.seed,
            "dictionary": request.dictionary_bytes,
        }
        path = folder / PLAN
        if path.exists():
            if not request.resume:
                raise FileError(str(folder), "holds a training already (use --resume to go on, -f to begin anew)")
            begun = json.loads(path.read_text())
            different = [key for key in plan if begun.get(key) != plan[key]]
            if different:
                what = "model given with --from" if different[0] == "from" else different[0]
                raise FileError(str(folder), f"was begun with another {what} (give the same, or use -f)")
        else:
            with output_file(str(path), force=True) as out:
                out.write(json.dumps(plan, indent=1).encode())

    def _vocabulary(self, text: Survey) -> Tokenizer:
        path, wanted = self.folder / VOCABULARY, self.request.shape(text.train_bytes).vocab
        if self.workers.leads and not path.exists():
            make_vocabulary(text, wanted, path)
        self.workers.wait()
        tokenizer = load_tokenizer(path)
        self._say(f"vocabulary: {tokenizer.size} tokens")
        return tokenizer

    def _packed(self, text: Survey, tokenizer: Tokenizer) -> Packed:
        if self.workers.leads and not (self.folder / PIECES).exists():
            pack(tokenizer, text.training_texts(), self.folder, piece_bytes_for(text.train_bytes), self.request.seed)
        self.workers.wait()
        packed = Packed(self.folder)
        each = text.train_bytes / len(packed.tokens)
        self._say(f"packing: {len(packed.tokens):,} tokens of {each:.2f} bytes, {len(packed.pieces):,} pieces")
        return packed

    def _initialise(self, text: Survey, tokenizer: Tokenizer, packed: Packed, shipped: Model | None) -> LanguageModel:
        if shipped:
            self._say(f"initialisation: the weights of {self.request.base}")
            return restore(shipped.weights)
        config = config_for(self.request.shape(text.train_bytes), tokenizer.size)
        starts = cluster_starts(tokenizer, packed, config.clusters)
        torch.manual_seed(self.request.seed)
        model = new_model(config, starts)
        self._say(
            f"initialisation: {config.arch}, width {config.width}, {config.layers} layers, hidden {config.hidden}, "
            f"{config.clusters} clusters: {config.body_multiply_adds / 1e6:.1f} M multiply-adds per token"
        )
        return model

    def _train(self, tokenizer: Tokenizer, packed: Packed, model: LanguageModel, heldout: Heldout) -> Trainer:
        recipe = self.request.recipe(len(packed.tokens), self.workers.count)
        token_bytes = np.diff(tokenizer.offsets)
        trainer = Trainer(model, packed, recipe, self.folder, token_bytes, self.workers)
        if self.request.resume and (self.folder / CHECKPOINT).exists():
            trainer.resume()
            self._say(f"resumed at step {trainer.step}")
        elif self.workers.leads:
            (self.folder / METRICS).unlink(missing_ok=True)  # of steps that no checkpoint holds: they come again
        limits = ((recipe.minutes, "minutes"), (recipe.steps, "steps"))
        budget = " or ".join(f"{limit:g} {unit}" for limit, unit in limits if limit < math.inf)
        self._say(
            f"training: {budget} on {self.workers.device.type} in {trainer.precision}, "
            f"{recipe.lanes} lanes of {recipe.window} tokens, "
            f"{self.workers.count} processes, {torch.get_num_threads()} threads"
        )

        def validate(model: LanguageModel) -> float:
            if (self.folder / METRICS).exists():  # not before the first report
                plot.draw(self.folder / METRICS, self.folder / CURVE)
            return heldout.bits_per_byte(model)

        with _interruptible() as stopped:
            trainer.run(validate, stopped, quiet=self.request.quiet)
        reason = "interrupted" if stopped() else "held-out text got no cheaper" if trainer.used < 1 else "finished"
        self._say(f"{reason} at step {trainer.step}, {trainer.tokens:,} tokens, {trainer.elapsed / 60:.1f} minutes")
        return trainer

    def _export(self, text: Survey, tokenizer: Tokenizer, packed: Packed, trainer: Trainer, heldout: Heldout) -> None:
        request = self.request
        best = self.folder / BEST
        model = load_model(best if best.exists() else self.folder / CHECKPOINT)
        base_model, recipe = registry.load(request.base or registry.DEFAULT), trainer.recipe
        lengths = np.diff(tokenizer.offsets)
        dictionary = packed.sample(lengths, request.dictionary_bytes, request.seed)
        dictionary_bytes = int(lengths[dictionary].sum())
        if dictionary_bytes:
            size = size_in_words(dictionary_bytes)
            self._say(f"dictionary: {size} of the text itself are part of the model (--dictionary 0 leaves them out)")
        alpha = PERSONAL_ALPHA if request.base else None
        if alpha:
            model = between(restore(base_model.weights), model, alpha)
        info: dict[str, Any] = {
            "name": request.output.stem,
            "training": {  # no path: the same training gives the same file, whatever folders are called
                "bytes": text.train_bytes,
                "steps": trainer.step,
                "tokens": trainer.tokens,
                "seed": request.seed,
                "from": base_model.digest.hex() if request.base else None,
                "alpha": alpha,
                "lanes": recipe.lanes,
                "window": recipe.window,
                "rates": [recipe.matrix_learning_rate, recipe.vector_learning_rate],
                "dictionary": dictionary_bytes,
            },
        }
        weights, base = export(model), base_model.initial_state
        whole = Model(weights, tokenizer, b"", info, base, dictionary)
        initial_state = retrained(whole, list(heldout.texts.values()), request.seed)
        self._say("mixer: initial state " + ("kept" if initial_state is base else "retrained on the held-out text"))
        info["selftest"] = selftest.make(replace(whole, initial_state=initial_state))
        data = dump(weights, tokenizer, info, initial_state, dictionary)
        with output_file(str(request.output), force=request.force or request.resume) as out:
            out.write(data)
        measured = card.measure(parse(data), model, heldout)
        facts = card.Facts(request.output, text, trainer, measured, alpha, dictionary_bytes, initial_state is not base)
        with output_file(str(request.card), force=True) as out:
            out.write(facts.markdown().encode())
        plot.draw(self.folder / METRICS, self.folder / CURVE)
        self._say(f"export: {request.output}, {size_in_words(len(data))}; {measured['all'].summary()}")


def make_vocabulary(text: Survey, size: int, path: Path) -> None:
    """Train a vocabulary of at most `size` tokens and write it for :func:`load_tokenizer`."""
    share = min(1.0, TOKENIZER_BYTES / text.train_bytes)
    tokens, ranks = train_bpe(_sample(text, share), size)
    offsets = np.cumsum([0, *map(len, tokens)]).astype(np.int64)
    with output_file(str(path), force=True) as out:
        np.savez(out, blob=np.frombuffer(b"".join(tokens), np.uint8), offsets=offsets, ranks=ranks)


def cluster_starts(tokenizer: Tokenizer, packed: Packed, clusters: int) -> torch.Tensor:
    """Return the first tokens of the head's classes, int64 ``[clusters]``, that make a step on this text cheapest."""
    counts = np.bincount(packed.tokens[:COUNTED_TOKENS], minlength=tokenizer.size) + 0.5
    starts = choose_clusters(DecisionTree.build(tokenizer.tokens), counts, clusters)
    return torch.from_numpy(starts.astype(np.int64))


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a vocabulary from a work folder."""
    with np.load(path) as stored:
        return Tokenizer.from_arrays(stored["blob"], stored["offsets"], stored["ranks"])


def _sample(text: Survey, share: float) -> Iterator[bytes]:
    """Yield the first `share` of what is trained on of every document."""
    for size, parts in zip(text.trained[text.trained > 0].tolist(), text.training_texts(), strict=True):
        left = math.ceil(share * size)
        taken = []
        for part in parts:
            taken.append(part[:left])
            left -= len(part)
            if left <= 0:
                break
        yield b"".join(taken)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Record the first Ctrl-C or SIGTERM: yields a function that returns whether it came. The second acts as usual."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    seen: list[int] = []

    def remember(number: int, _frame: object) -> None:
        seen.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, remember)
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
