"""The training loop: forward pass, loss, backward pass, update; validation; checkpoints.

Muon (Jordan et al. 2024) turns the matrices of the body, AdamW everything else. The learning rate warms up,
stays flat for a part of the budget and falls linearly to zero. A run that is stopped, or killed, goes on
from its last checkpoint as if nothing had happened: with a budget in steps, to the same bits.
"""

from __future__ import annotations

import ctypes
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from llmzip.atomic_output import output_file
from llmzip.errors import ModelError
from llmzip.training.corpus import Packed, Streams
from llmzip.training.fusion import fusing
from llmzip.training.loss import TwoLevelCrossEntropy
from llmzip.training.model import LanguageModel, ModelConfig, State
from llmzip.training.muon import Muon
from llmzip.training.recipe import Recipe
from llmzip.training.token_mixers import new_model
from llmzip.training.workers import Workers

CHECKPOINT, BEST, METRICS = "checkpoint.pt", "best.pt", "metrics.jsonl"


def bf16_in_hardware(device: torch.device) -> bool:
    """Return whether a device multiplies bf16 in hardware (elsewhere float32 is faster)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks instead of returning each to the system.

    Every step frees and allocates the same gigabytes; faulting their pages in again cost 40 % of a step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another C library
    m_trim_threshold, m_mmap_threshold = -1, -3
    mallopt(m_mmap_threshold, 1 << 30)
    mallopt(m_trim_threshold, (1 << 31) - 1)


class Objective(nn.Module):
    """The mean loss of a batch, in nats per token, from the inputs and the state before."""

    def __init__(self, model: LanguageModel):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor, state: list[State]) -> tuple[Tensor, list[State]]:
        """Return the loss and the state after; inputs and targets are int64 ``[T, B]``."""
        hidden, state = self.model(inputs, state)
        total, _ = TwoLevelCrossEntropy.apply(
            hidden.flatten(0, 1),
            self.model.head_cluster,
            self.model.head_token,
            targets.flatten(),
            self.model.cluster_starts,
        )
        return total / targets.numel(), state


class Trainer:
    """The model, its optimisers and its position in the data; :meth:`run` uses the budget up.

    `token_bytes` int64 ``[vocab]`` are the lengths of the tokens. `folder` gets metrics.jsonl, checkpoint.pt and,
    if there is validation, best.pt.
    """

    def __init__(
        self,
        model: LanguageModel,
        packed: Packed,
        recipe: Recipe,
        folder: Path,
        token_bytes: np.ndarray,
        workers: Workers | None = None,
    ):
        self.workers = workers or Workers()
        self.model, self.recipe, self.folder = model.to(self.workers.device), recipe, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.streams = Streams(packed, model.bos, recipe.lanes, recipe.seed)
        mixers = [*model.token_mixers.parameters(), *model.channel_mixers.parameters()]
        matrices = [p for p in mixers if p.ndim == 2]
        chosen = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in chosen]
        self.optimisers = [
            Muon(matrices, lr=recipe.matrix_learning_rate),
            torch.optim.AdamW(others, lr=recipe.vector_learning_rate, betas=(0.9, 0.97), weight_decay=0.0, fused=True),
        ]
        self.learning_rates = [recipe.matrix_learning_rate, recipe.vector_learning_rate]
        self.objective = self.workers.wrap(Objective(self.model))
        self.lanes = self.workers.share(recipe.lanes)
        self.state = self.model.initial_state(self.lanes.stop - self.lanes.start)
        self.step, self.tokens, self.elapsed, self.cpu_seconds = 0, 0, 0.0, 0.0
        self.validations: list[tuple[int, float, float]] = []  # (step, elapsed, bits per byte)
        self._since = [0.0, 0.0, 0.0, 0.0]  # since the last report: nats, tokens, bytes, seconds
        self._token_bytes = torch.from_numpy(np.append(token_bytes, 0).astype(np.int64))
        self._bf16 = bf16_in_hardware(self.workers.device)

    @property
    def precision(self) -> str:
        """Return what the matrix products of a step are computed in."""
        return "bf16" if self._bf16 else "float32"

    # The budget

    def _used(self, step: int, elapsed: float) -> float:
        """Return the used share of the budget."""
        return max(elapsed / (60 * self.recipe.minutes), step / self.recipe.steps)

    @property
    def used(self) -> float:
        """Return the share of the budget that is used now."""
        return self._used(self.step, self.elapsed)

    def _learning_rate_factor(self) -> float:
        decay = (1 - self.used) / (1 - self.recipe.decay_from)
        return min(1.0, (self.step + 1) / self.recipe.warmup_steps, max(0.0, decay))

    def _validation_is_due(self) -> bool:
        last = self._used(*self.validations[-1][:2]) if self.validations else 0.0
        return self.used - last >= 1 / self.recipe.validations

    def out_of_patience(self) -> bool:
        """Return whether held-out text has not become cheaper for `patience` measurements."""
        bits = [b for _, _, b in self.validations]
        return bool(bits) and len(bits) - 1 - bits.index(min(bits)) >= self.recipe.patience

    # One step

    def train_step(self) -> float:
        """Take one step and return its mean loss in nats per token, over all processes' lanes."""
        inputs, targets = self.streams.next(self.recipe.window)
        self._since[1] += targets.numel()
        self._since[2] += int(self._token_bytes[targets].sum())
        device = self.workers.device
        mine = [ids[:, self.lanes].contiguous().to(device, non_blocking=True) for ids in (inputs, targets)]
        with torch.autocast(device.type, torch.bfloat16, enabled=self._bf16), fusing(self.recipe.fuse):
            loss, self.state = self.objective(*mine, self.state)
        loss.backward()
        factor = self._learning_rate_factor()
        for optimiser, rate in zip(self.optimisers, self.learning_rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += targets.numel()
        mean = self.workers.total(loss.item()) / self.workers.count
        self._since[0] += mean * targets.numel()
        return mean

    # The loop

    def run(
        self,
        validate: Callable[[LanguageModel], float] | None = None,
        stop: Callable[[], bool] = lambda: False,
        quiet: bool = True,
    ) -> None:
        """Train until the budget is used up, `stop` says so, or held-out text does not become cheaper any more.

        `validate` returns a model's bits per byte of held-out text; it is called by process 0 only.
        """
        keep_freed_memory()
        wall, cpu, saved = time.monotonic(), time.process_time(), self.elapsed
        with self._progress(quiet) as bar:
            while self.used < 1 and not self.out_of_patience():
                loss = self.train_step()
                if not math.isfinite(loss):
                    raise ModelError(f"training failed: the loss is {loss} at step {self.step} (try another --seed)")
                now, now_cpu = time.monotonic(), time.process_time()
                self.elapsed, stopped = self.workers.agree(self.elapsed + now - wall, float(stop()))
                self._since[3] += now - wall
                self.cpu_seconds += now_cpu - cpu
                wall, cpu = now, now_cpu
                if self.step % self.recipe.report_steps == 0:
                    self._report(bar)
                at_end = stopped or self.used >= 1
                if validate and (at_end or self._validation_is_due()):
                    self._validate(validate, bar)
                    saved = -math.inf
                if at_end or self.elapsed - saved >= self.recipe.checkpoint_seconds:
                    self.save()
                    saved = self.elapsed
                if stopped:
                    break
        if not (self.folder / CHECKPOINT).exists():
            self.save()

    def _progress(self, quiet: bool) -> tqdm:
        shown = self.workers.leads and not quiet
        form = "{desc} {percentage:3.0f} %|{bar}| {elapsed}<{remaining}{postfix}"
        return tqdm(
            total=1.0, initial=min(1.0, self.used), desc="train", bar_format=form, disable=None if shown else True
        )

    def _report(self, bar: tqdm) -> None:
        nats, tokens, size, seconds = self._since
        self._since = [0.0, 0.0, 0.0, 0.0]
        bits = nats / math.log(2)
        line = {
            "step": self.step,
            "tokens": self.tokens,
            "bits_per_token": bits / tokens,
            "bits_per_byte": bits / size,
            "learning_rate_factor": self._learning_rate_factor(),
            "tokens_per_second": tokens / seconds if seconds else None,
            "minutes": self.elapsed / 60,
            "cpu_minutes": self.cpu_seconds / 60,
        }
        self._log(line)
        heldout = f", held-out {self.validations[-1][2]:.3f}" if self.validations else ""
        bar.set_postfix_str(
            f"step {self.step}, {bits / size:.3f} bits/byte{heldout}, {tokens / max(seconds, 1e-9):,.0f} tokens/s",
            False,
        )
        bar.update(min(1.0, self.used) - bar.n)

    def _validate(self, validate: Callable[[LanguageModel], float], bar: tqdm) -> None:
        bits = validate(self.model) if self.workers.leads else 0.0
        (bits,) = self.workers.agree(bits)
        best = not self.validations or bits < min(b for _, _, b in self.validations)
        self.validations.append((self.step, self.elapsed, bits))
        self._log({"step": self.step, "heldout_bits_per_byte": bits})
        if best and self.workers.leads:
            self._write(
                BEST, {"config": asdict(self.model.config), "model": self.model.state_dict(), "step": self.step}
            )
        bar.update(min(1.0, self.used) - bar.n)

    def _log(self, line: dict[str, Any]) -> None:
        if self.workers.leads:
            with (self.folder / METRICS).open("a", encoding="utf-8") as metrics:
                metrics.write(json.dumps(line) + "\n")

    # Checkpoints

    def _write(self, name: str, content: dict[str, Any]) -> None:
        """Write a file through a temporary name: a kill, or a full disk, leaves the old one whole."""
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with output_file(str(self.folder / name), force=True) as out:
            out.write(buffer.getbuffer())

    def save(self) -> None:
        """Write checkpoint.pt."""
        state = self.workers.gather(self.state)
        if not self.workers.leads:
            return
        checkpoint = {
            "config": asdict(self.model.config),
            "model": self.model.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "state": state,
            "streams": self.streams.state(),
            "rng": torch.get_rng_state(),
            "counters": (self.step, self.tokens, self.elapsed, self.cpu_seconds),
            "validations": self.validations,
            "since": self._since,
        }
        self._write(CHECKPOINT, checkpoint)

    def resume(self) -> None:
        """Continue from checkpoint.pt: weights, optimisers, recurrent state, data position, random state, metrics."""
        checkpoint = torch.load(self.folder / CHECKPOINT, weights_only=True, map_location="cpu")
        lanes = len(checkpoint["state"][0][0])
        if lanes != self.recipe.lanes:
            hint = f"give --lanes {lanes}"
            if lanes % self.workers.count:  # they would be rounded up again
                hint = f"use a number of processes that divides {lanes}"
            raise ModelError(f"the training has {lanes} lanes, not {self.recipe.lanes} ({hint})")
        self.model.load_state_dict(checkpoint["model"])
        for optimiser, state in zip(self.optimisers, checkpoint["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        device = self.workers.device
        self.state = [tuple(t[self.lanes].to(device) for t in layer) for layer in checkpoint["state"]]
        self.streams.restore(checkpoint["streams"])
        torch.set_rng_state(checkpoint["rng"])
        self.step, self.tokens, self.elapsed, self.cpu_seconds = checkpoint["counters"]
        self.validations, self._since = list(checkpoint["validations"]), list(checkpoint["since"])
        if self.workers.leads:
            self._forget_metrics_after(self.step)

    def _forget_metrics_after(self, step: int) -> None:
        """Drop what was logged after the checkpoint, half a line at the end included: it will be logged again."""
        path = self.folder / METRICS
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        with output_file(str(path), force=True) as out:
            out.write("".join(line + "\n" for line in kept).encode())


def load_model(path: Path) -> LanguageModel:
    """Return the network of checkpoint.pt or best.pt."""
    checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    config = ModelConfig(**checkpoint["config"])
    model = new_model(config, checkpoint["model"]["cluster_starts"])
    model.load_state_dict(checkpoint["model"])
    return model
