"""What a call of `train` asks for, and the recipe that follows from it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from llmzip.training.request import Request

SCRATCH = {"matrix_learning_rate": 0.01, "vector_learning_rate": 0.004, "decay_from": 0.15}
PERSONAL = {"matrix_learning_rate": 0.0008, "vector_learning_rate": 0.0008, "decay_from": 0.5}


@pytest.mark.parametrize(
    ("asked", "processes", "expected"),
    [
        # 40,000 tokens in steps of 8 x 64: eight epochs, or three of personalising, and an hour.
        ({}, 1, {**SCRATCH, "lanes": 8, "window": 64, "minutes": 60, "steps": 625, "warmup_steps": 40}),
        ({"base": "default"}, 1, {**PERSONAL, "lanes": 8, "window": 64, "minutes": 60, "steps": 235}),
        # A budget that is given is the only one, and no epochs end it earlier.
        ({"minutes": 5.0}, 1, {**SCRATCH, "minutes": 5, "steps": math.inf, "warmup_steps": 40}),
        ({"steps": 30}, 1, {**SCRATCH, "minutes": math.inf, "steps": 30, "warmup_steps": 4}),
        ({"minutes": 5.0, "steps": 30}, 1, {"minutes": 5, "steps": 30}),
        ({"base": "default", "minutes": 5.0}, 1, {**PERSONAL, "minutes": 5, "steps": math.inf}),
        ({"base": "default", "steps": 3000}, 1, {**PERSONAL, "minutes": math.inf, "steps": 3000, "warmup_steps": 40}),
        # Epochs are counted in the steps there are: lanes rounded up to what the processes can share.
        ({}, 3, {"lanes": 9, "window": 64, "minutes": 60, "steps": 556}),
        ({"lanes": 5, "window": 32}, 2, {"lanes": 6, "window": 32, "minutes": 60, "steps": 1667}),
        ({"base": "default", "lanes": 5}, 1, {"lanes": 5, "window": 64, "steps": 375}),
    ],
)
def test_recipe_follows_from_what_was_asked_for_and_the_tokens(
    asked: dict[str, float | str], processes: int, expected: dict[str, float]
) -> None:
    recipe = Request((Path("corpus"),), Path("m.safetensors"), **asked).recipe(40_000, processes)
    assert {name: getattr(recipe, name) for name in expected} == pytest.approx(expected)
