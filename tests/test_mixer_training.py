"""The mixer's start values, learned from text: deterministic, from those there are, and only where text is enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from texts import words

from llmzip.coding.token_coder import Engine
from llmzip.mixing.initial_state import Start
from llmzip.model.file import Model
from llmzip.training.mixer import LEAST_BYTES, retrained, train_start

TEXTS = [words(8000, 1), words(8000, 2)]


def same(a: Start, b: Start) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def archive(model: Model, start: Start) -> int:
    coded = Engine(replace(model, start=start)).encode(words(1500, 3))
    assert coded is not None
    return len(coded.payload)


def test_retrained_start_values_make_siblings_smaller_and_depend_on_the_seed_only(tiny: Model) -> None:
    assert sum(map(len, TEXTS)) > LEAST_BYTES
    before = {name: value.copy() for name, value in vars(tiny.start).items()}
    start = retrained(tiny, TEXTS, 1)
    assert archive(tiny, start) < 0.97 * archive(tiny, tiny.start)
    assert same(tiny.start, Start(**before))
    assert same(retrained(tiny, TEXTS, 1), start)
    assert not same(retrained(tiny, TEXTS, 2), start)


def test_retraining_begins_with_the_start_values_there_are(tiny: Model) -> None:
    known = train_start([words(4000, 4)], tiny)
    assert not same(known, tiny.start)
    again = replace(tiny, start=known)
    text = [words(1000, 5)]
    assert archive(tiny, train_start(text, again)) < archive(tiny, train_start(text, tiny))


def test_too_little_text_leaves_the_start_values_alone(tiny: Model) -> None:
    assert retrained(tiny, [b"x" * (LEAST_BYTES - 1)], 1) is tiny.start
    assert retrained(tiny, [], 1) is tiny.start
