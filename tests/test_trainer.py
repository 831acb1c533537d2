"""The trainer: losses that fall, checkpoints, interruptions."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny_model, tiny_tokenizer
from texts import WORDS

from llmzip.coding.token_coder import TokenCoder
from llmzip.errors import ModelError
from llmzip.model import file as modelfile
from llmzip.tools.token_probabilities import exact_bits
from llmzip.training import trainer as trainer_module
from llmzip.training.corpus import Packed, pack
from llmzip.training.evaluation import nats_of
from llmzip.training.export import export
from llmzip.training.model import LanguageModel
from llmzip.training.recipe import Recipe
from llmzip.training.trainer import Trainer, load_model
from llmzip.training.workers import Workers

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Return a folder with 50 KB of packed text."""
    folder = tmp_path_factory.mktemp("corpus")
    words = WORDS.split()
    rng = np.random.default_rng(0)
    text = b" ".join(words[i] for i in rng.zipf(1.5, 12_000) % len(words))[:50_000]
    pack(tiny_tokenizer(), [[text]], folder, longest=2000, seed=1)
    return folder


TOKEN_BYTES = np.array([len(token) for token in tiny_tokenizer().tokens])


def new_trainer(corpus: Path, folder: Path, minutes: float = 1.0, **varied: float) -> Trainer:
    recipe = Recipe(**{"minutes": minutes, "lanes": 8, "window": 32, "warmup_steps": 5, "report_steps": 1, **varied})
    return Trainer(tiny_model(layers=1, width=32, hidden=48), Packed(corpus), recipe, folder, TOKEN_BYTES)


def steps(trainer: Trainer, count: int) -> list[float]:
    return [trainer.train_step() for _ in range(count)]


def parameters(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.model.parameters()]


def test_loss_falls_on_a_small_corpus(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path)
    losses = steps(trainer, 80)
    assert np.mean(losses[:3]) > 4
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])
    assert trainer.step == 80
    assert trainer.tokens == 80 * 8 * 32


def test_every_parameter_is_trained(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path)
    before = parameters(trainer)
    steps(trainer, 2)
    for (name, after), start in zip(trainer.model.named_parameters(), before, strict=True):
        assert not torch.equal(after, start), name
    matrices = {id(p) for p in trainer.optimisers[0].param_groups[0]["params"]}
    mixers = [*trainer.model.token_mixers.parameters(), *trainer.model.channel_mixers.parameters()]
    assert matrices == {id(p) for p in mixers if p.ndim == 2}


def test_resumed_training_is_the_training_that_was_not_interrupted(corpus: Path, tmp_path: Path) -> None:
    whole = new_trainer(corpus, tmp_path / "whole")
    expected = steps(whole, 12)
    first = new_trainer(corpus, tmp_path / "cut")
    assert steps(first, 5) == expected[:5]
    first.save()
    steps(first, 2)  # lost by the interruption
    second = new_trainer(corpus, tmp_path / "cut")
    second.resume()
    assert steps(second, 7) == expected[5:]
    assert (second.step, second.tokens) == (whole.step, whole.tokens)
    assert all(torch.equal(a, b) for a, b in zip(parameters(second), parameters(whole), strict=True))


def test_checkpoint_with_other_lanes_is_refused(corpus: Path, tmp_path: Path) -> None:
    new_trainer(corpus, tmp_path).save()
    with pytest.raises(ModelError, match=r"has 8 lanes, not 16 \(give --lanes 8\)"):
        new_trainer(corpus, tmp_path, lanes=16).resume()


def test_checkpoint_with_lanes_that_the_processes_cannot_share_says_how_many_can(corpus: Path, tmp_path: Path) -> None:
    new_trainer(corpus, tmp_path).save()
    third = new_trainer(corpus, tmp_path, lanes=9)  # what --lanes 8 comes to
    third.workers = Workers(count=3)
    with pytest.raises(ModelError, match=r"has 8 lanes, not 9 \(use a number of processes that divides 8\)"):
        third.resume()


def test_interrupted_save_leaves_the_checkpoint_before_it(corpus: Path, tmp_path: Path, monkeypatch) -> None:
    trainer = new_trainer(corpus, tmp_path)
    steps(trainer, 2)
    trainer.save()
    saved = parameters(trainer)
    steps(trainer, 1)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as caught:
            trainer.save()
    assert caught.value.filename == str(tmp_path / "checkpoint.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    again = new_trainer(corpus, tmp_path)
    again.resume()
    assert again.step == 2
    assert all(torch.equal(a, b) for a, b in zip(parameters(again), saved, strict=True))


def test_checkpoint_gives_the_network_back(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path)
    steps(trainer, 2)
    trainer.save()
    model = load_model(tmp_path / "checkpoint.pt")
    assert model.config == trainer.model.config
    expected = trainer.model.state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_run_uses_the_budget_up_and_writes_metrics_and_a_checkpoint(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path, minutes=0.005)
    trainer.run()
    assert trainer.elapsed >= 0.3
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, trainer.step + 1))
    for line in lines:
        bytes_per_token = line["bits_per_token"] / line["bits_per_byte"]
        assert 1 < bytes_per_token < 3
        assert line["tokens_per_second"] > 0
    again = new_trainer(corpus, tmp_path, minutes=0.005)
    again.resume()
    assert (again.step, again.tokens, again.elapsed) == (trainer.step, trainer.tokens, trainer.elapsed)
    again.run()  # the budget is that of all sessions
    assert again.step == trainer.step


def test_run_stops_when_the_loss_is_no_number(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path)
    with torch.no_grad():
        trainer.model.embedding.weight.fill_(math.nan)
    with pytest.raises(ModelError, match="at step 1"):
        trainer.run()
    assert not (tmp_path / "checkpoint.pt").exists()


def test_rate_warms_up_and_falls_to_zero_over_the_rest_of_the_budget(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path, minutes=1.0, decay_from=0.5)
    warmed = []
    for trainer.step in range(7):
        warmed.append(trainer._learning_rate_factor())
    assert warmed == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]
    factors = []
    for trainer.elapsed in (0.0, 30.0, 45.0, 60.0, 70.0):
        factors.append(trainer._learning_rate_factor())
    assert factors == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_bf16_is_used_only_where_the_cpu_has_it(monkeypatch) -> None:
    cpu = torch.device("cpu")
    for name, value in (("_is_avx512_bf16_supported", False), ("_is_amx_tile_supported", False)):
        monkeypatch.setattr(torch.cpu, name, lambda value=value: value)
    assert not trainer_module.bf16_in_hardware(cpu)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert trainer_module.bf16_in_hardware(cpu)


def test_training_in_bf16_learns_the_same_and_what_it_exports_works(corpus: Path, tmp_path: Path, monkeypatch) -> None:
    losses = {}
    for precision in ("float32", "bf16"):
        monkeypatch.setattr(trainer_module, "bf16_in_hardware", lambda _, wanted=precision: wanted == "bf16")
        trainer = new_trainer(corpus, tmp_path / precision)
        assert trainer.precision == precision
        losses[precision] = steps(trainer, 20)
    assert losses["bf16"][-1] < 0.9 * losses["bf16"][0]
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.02)
    token_coder = TokenCoder(modelfile.parse(modelfile.dump(export(trainer.model), tiny_tokenizer(), {})))
    text = WORDS * 10
    coded = token_coder.encode(text)
    assert token_coder.decode(coded.payload, coded.lane_bytes) == text
    expected = nats_of(trainer.model, tiny_tokenizer().encode(text), 1) / math.log(2)
    assert exact_bits(token_coder, text, 1) == pytest.approx(expected, rel=0.02)


def metrics(folder: Path, key: str) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines if key in line]


def test_killed_run_goes_on_to_the_same_weights_and_metrics(corpus: Path, tmp_path: Path) -> None:
    budget = {"minutes": math.inf, "steps": 20, "validations": 4, "checkpoint_seconds": 1e9}

    def validate(model: LanguageModel) -> float:
        return float(model.head_token.detach().abs().mean())

    whole = new_trainer(corpus, tmp_path / "whole", **budget)
    whole.run(validate)
    first = new_trainer(corpus, tmp_path / "cut", **budget)

    def killed() -> bool:
        if first.step == 13:
            raise RuntimeError
        return False

    with pytest.raises(RuntimeError):
        first.run(validate, killed)  # the last checkpoint is that of the validation at step 10
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "half a li')
    second = new_trainer(corpus, tmp_path / "cut", **budget)
    second.resume()
    assert second.step == 10
    second.run(validate)
    assert all(torch.equal(a, b) for a, b in zip(parameters(second), parameters(whole), strict=True))
    for key in ("bits_per_byte", "heldout_bits_per_byte", "learning_rate_factor"):
        assert metrics(tmp_path / "cut", key) == metrics(tmp_path / "whole", key)
    assert [step for step, _ in metrics(tmp_path / "cut", "heldout_bits_per_byte")] == [5, 10, 15, 20]


def test_best_weights_are_kept_and_training_ends_without_progress(corpus: Path, tmp_path: Path) -> None:
    bits = iter([3.0, 2.0, 2.5, 2.4, 2.0, 1.0])
    trainer = new_trainer(corpus, tmp_path, minutes=math.inf, steps=100, validations=50, patience=3)
    seen = {}

    def validate(model: LanguageModel) -> float:
        seen[trainer.step] = model.head_token.detach().clone()
        return next(bits)

    trainer.run(validate)
    assert [b for _, _, b in trainer.validations] == [3.0, 2.0, 2.5, 2.4, 2.0]
    assert torch.equal(load_model(tmp_path / "best.pt").head_token, seen[4])


def test_stopped_run_saves_what_there_is(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path)
    trainer.run(stop=lambda: trainer.step == 3)
    again = new_trainer(corpus, tmp_path)
    again.resume()
    assert again.step == 3
