"""Fused training: the same numbers, compiled only where it pays, and one line where there is no compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks import tiny_model, tiny_tokenizer

from llmzip.errors import HardwareError
from llmzip.training.corpus import Packed, pack
from llmzip.training.fusion import fusible, fusing, require_compiler
from llmzip.training.recipe import Recipe
from llmzip.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """Return the names of the functions that have been compiled; they are run as they are."""
    names: list[str] = []

    def compile_(function, *, dynamic: bool):
        assert not dynamic
        names.append(function.__name__)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    return names


def test_functions_are_compiled_once_and_only_while_fusing(compiled: list[str]) -> None:
    @fusible
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    one = torch.ones(1)
    assert double(one) == 2
    with fusing(False):
        assert double(one) == 2
    assert compiled == []
    with fusing(True):
        assert double(one) == double(one) == 2
    assert compiled == ["double"]
    with pytest.raises(ZeroDivisionError), fusing(True):
        raise ZeroDivisionError
    double._plain = torch.neg
    assert double(one) == -1


def new_trainer(folder: Path, fuse: bool) -> Trainer:
    tokenizer = tiny_tokenizer()
    pack(tokenizer, [[b"the thing and another one are on the table. " * 500]], folder, longest=2000, seed=1)
    recipe = Recipe(steps=6, lanes=8, window=32, warmup_steps=1, fuse=fuse)
    return Trainer(tiny_model(layers=1), Packed(folder), recipe, folder, torch.ones(tokenizer.size).numpy())


def test_training_steps_are_fused_and_validations_are_not(compiled: list[str], tmp_path: Path, monkeypatch) -> None:
    from llmzip.training import model

    for name in ("normalise", "with_previous", "gates"):
        monkeypatch.setattr(model, name, fusible(getattr(model, name)._plain))
    new_trainer(tmp_path, fuse=False).train_step()
    assert compiled == []
    trainer = new_trainer(tmp_path, fuse=True)
    trainer.model(torch.zeros(3, 1, dtype=torch.int64), trainer.model.initial_state(1))
    assert compiled == []
    trainer.train_step()
    assert sorted(compiled) == ["gates", "normalise", "with_previous"]


@pytest.mark.slow
def test_fused_steps_have_the_same_losses(tmp_path: Path) -> None:
    plain, fused = (new_trainer(tmp_path, fuse) for fuse in (False, True))
    expected = [plain.train_step() for _ in range(6)]
    assert expected[-1] < 0.9 * expected[0]
    assert [fused.train_step() for _ in range(6)] == pytest.approx(expected, rel=1e-5)


def test_missing_compiler_is_told(monkeypatch) -> None:
    def compile_(*_, **__):
        def broken(_: torch.Tensor) -> None:
            raise RuntimeError("no g++\nnor anything else")

        return broken

    monkeypatch.setattr(torch, "compile", compile_)
    with pytest.raises(HardwareError, match=r"^torch\.compile does not work here: .* \(leave out --compile\)$"):
        require_compiler(torch.device("cpu"))
