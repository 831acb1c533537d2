"""The mixer's initial state, learned from text: deterministic, from those there are, and only where text is enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from texts import words

from llmzip.coding.token_coder import TokenCoder
from llmzip.mixing.initial_state import InitialState
from llmzip.model.file import Model
from llmzip.training.mixer import LEAST_BYTES, retrained, train_initial_state

TEXTS = [words(8000, 1), words(8000, 2)]


def same(a: InitialState, b: InitialState) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def archive(model: Model, start: InitialState) -> int:
    coded = TokenCoder(replace(model, initial_state=start)).encode(words(1500, 3))
    assert coded is not None
    return len(coded.payload)


def test_retrained_start_values_make_siblings_smaller_and_depend_on_the_seed_only(tiny: Model) -> None:
    assert sum(map(len, TEXTS)) > LEAST_BYTES
    before = {name: value.copy() for name, value in vars(tiny.initial_state).items()}
    start = retrained(tiny, TEXTS, 1)
    assert archive(tiny, start) < 0.97 * archive(tiny, tiny.initial_state)
    assert same(tiny.initial_state, InitialState(**before))
    assert same(retrained(tiny, TEXTS, 1), start)
    assert not same(retrained(tiny, TEXTS, 2), start)


def test_retraining_begins_with_the_start_values_there_are(tiny: Model) -> None:
    known = train_initial_state([words(4000, 4)], tiny)
    assert not same(known, tiny.initial_state)
    again = replace(tiny, initial_state=known)
    text = [words(1000, 5)]
    assert archive(tiny, train_initial_state(text, again)) < archive(tiny, train_initial_state(text, tiny))


def test_too_little_text_leaves_the_start_values_alone(tiny: Model) -> None:
    assert retrained(tiny, [b"x" * (LEAST_BYTES - 1)], 1) is tiny.initial_state
    assert retrained(tiny, [], 1) is tiny.initial_state
