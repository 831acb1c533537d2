"""The training loop: forward pass, loss, backward pass, update; checkpoints; bits per byte of held-out text.

Muon (Jordan et al. 2024) turns the matrices of the body, AdamW everything else. The learning rate warms up,
stays flat and falls linearly to zero over the second half of the budget.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from llmzip.lanes import cut, inputs_of
from llmzip.model import LanguageModel, ModelConfig
from llmzip.tokenizer import Tokenizer
from llmzip.training.corpus import Packed, Streams, documents
from llmzip.training.loss import TwoLevelCrossEntropy
from llmzip.training.muon import Muon


@dataclass(frozen=True)
class Recipe:
    """Hold what a run may vary; defaults are the measured recipe."""

    minutes: float  # wall-clock time of training, over all sessions of the run
    lanes: int = 64
    window: int = 128  # tokens of truncated back-propagation
    matrix_rate: float = 0.02  # Muon
    vector_rate: float = 0.004  # AdamW
    warmup_steps: int = 40
    decay_from: float = 0.5  # share of the budget after which the rate falls
    seed: int = 1
    checkpoint_seconds: float = 300


def autocast_cpu_bf16() -> bool:
    """Tell whether this CPU multiplies bf16 in hardware (elsewhere float32 is faster)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks instead of returning each to the system.

    Every step frees and allocates the same gigabytes; faulting their pages in again cost 40 % of a step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another C library
    m_trim_threshold, m_mmap_threshold = -1, -3
    mallopt(m_mmap_threshold, 1 << 30)
    mallopt(m_trim_threshold, (1 << 31) - 1)


class Trainer:
    """Own the model, its optimisers and its place in the data; :meth:`run` uses the budget up."""

    def __init__(self, model: LanguageModel, packed: Packed, recipe: Recipe, folder: Path):
        self.model, self.recipe, self.folder = model, recipe, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.streams = Streams(packed, model.begin, recipe.lanes, recipe.seed)
        mixers = [*model.token_mixers.parameters(), *model.channel_mixers.parameters()]
        matrices = [p for p in mixers if p.ndim == 2]
        chosen = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in chosen]
        self.optimisers = [
            Muon(matrices, lr=recipe.matrix_rate),
            torch.optim.AdamW(others, lr=recipe.vector_rate, betas=(0.9, 0.97), weight_decay=0.0, fused=True),
        ]
        self.rates = [recipe.matrix_rate, recipe.vector_rate]
        self.state = model.initial_state(recipe.lanes)
        self.step, self.tokens, self.elapsed, self.cpu_seconds = 0, 0, 0.0, 0.0
        self.bf16 = autocast_cpu_bf16()

    def _rate_factor(self) -> float:
        used = self.elapsed / (60 * self.recipe.minutes)
        decay = (1 - used) / (1 - self.recipe.decay_from)
        return min(1.0, (self.step + 1) / self.recipe.warmup_steps, max(0.0, decay))

    def train_step(self) -> float:
        """Take one step and return its mean loss in nats per token."""
        inputs, targets = self.streams.next(self.recipe.window)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            hidden, self.state = self.model(inputs, self.state)
            total, _ = TwoLevelCrossEntropy.apply(
                hidden.flatten(0, 1),
                self.model.head_cluster,
                self.model.head_token,
                targets.flatten(),
                self.model.cluster_starts,
            )
        loss = total / targets.numel()
        loss.backward()
        factor = self._rate_factor()
        for optimiser, rate in zip(self.optimisers, self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += targets.numel()
        return loss.item()

    def run(self, report_every: int = 50) -> None:
        """Train until the budget is used up, writing metrics.jsonl and checkpoint.pt."""
        keep_freed_memory()
        wall, cpu, saved = time.monotonic(), time.process_time(), time.monotonic()
        losses: list[float] = []
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as metrics:
            while self.elapsed < 60 * self.recipe.minutes:
                losses.append(self.train_step())
                if not math.isfinite(losses[-1]):
                    raise FloatingPointError(f"the loss is {losses[-1]} at step {self.step}")
                now, now_cpu = time.monotonic(), time.process_time()
                self.elapsed += now - wall
                self.cpu_seconds += now_cpu - cpu
                wall, cpu = now, now_cpu
                if self.step % report_every == 0:
                    line = {
                        "step": self.step,
                        "tokens": self.tokens,
                        "bits_per_token": sum(losses) / len(losses) / math.log(2),
                        "rate": self._rate_factor(),
                        "minutes": self.elapsed / 60,
                        "cpu_minutes": self.cpu_seconds / 60,
                    }
                    print(json.dumps(line), file=metrics, flush=True)
                    losses.clear()
                if now - saved > self.recipe.checkpoint_seconds:
                    self.save()
                    saved = now
        self.save()

    def save(self) -> None:
        """Write checkpoint.pt through a temporary name: a kill leaves the old one whole."""
        checkpoint = {
            "config": asdict(self.model.config),
            "model": self.model.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "state": self.state,
            "streams": self.streams.state(),
            "rng": torch.get_rng_state(),
            "counters": (self.step, self.tokens, self.elapsed, self.cpu_seconds),
        }
        partial = self.folder / "checkpoint.pt.tmp"
        torch.save(checkpoint, partial)
        os.replace(partial, self.folder / "checkpoint.pt")

    def resume(self) -> None:
        """Continue from checkpoint.pt: weights, optimisers, recurrent state, data position, random state."""
        checkpoint = torch.load(self.folder / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(checkpoint["model"])
        for optimiser, state in zip(self.optimisers, checkpoint["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.state = checkpoint["state"]
        self.streams.restore(checkpoint["streams"])
        torch.set_rng_state(checkpoint["rng"])
        self.step, self.tokens, self.elapsed, self.cpu_seconds = checkpoint["counters"]


def load_model(checkpoint_path: Path) -> LanguageModel:
    """Return the network of a checkpoint."""
    checkpoint = torch.load(checkpoint_path, weights_only=True)
    config = ModelConfig(**checkpoint["config"])
    model = LanguageModel(config, checkpoint["model"]["cluster_starts"])
    model.load_state_dict(checkpoint["model"])
    return model


@torch.no_grad()
def nats_of(model: LanguageModel, ids: np.ndarray, lanes: int) -> float:
    """Return what the float model pays for tokens ``[n]`` cut into `lanes` fresh lanes, in nats."""
    grid = cut(ids, lanes)
    inputs = torch.from_numpy(inputs_of(grid, model.begin)).long()
    targets = torch.from_numpy(grid).long()
    state, nats = model.initial_state(lanes), 0.0
    for at in range(0, len(grid), 256):
        hidden, state = model(inputs[at : at + 256], state)
        total, _ = TwoLevelCrossEntropy.apply(
            hidden.flatten(0, 1),
            model.head_cluster,
            model.head_token,
            targets[at : at + 256].flatten(),
            model.cluster_starts,
        )
        nats += float(total)
    return nats


def bits_per_byte(model: LanguageModel, tokenizer: Tokenizer, files: Iterable[Path]) -> dict[str, float]:
    """Return the float model's bits per byte on each file, its documents joined."""
    result = {}
    for path in files:
        text = b"".join(documents(path))
        result[path.stem] = nats_of(model, tokenizer.encode(text), 16) / math.log(2) / len(text)
    return result
