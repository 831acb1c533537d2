"""A model's dictionary: every frame begins as if it had seen that text."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import words

from llmzip.engine import Engine
from llmzip.errors import FormatError
from llmzip.history import TOKEN_BEGINS

TEXT = words(900, seed=3) + "größer, Łódź\n".encode() * 3


@pytest.fixture(scope="module")
def model(tiny):
    return replace(tiny, dictionary=tiny.tokenizer.encode(TEXT).astype(np.uint16))


@pytest.fixture(scope="module")
def engine(model):
    return Engine(model)


def coded(engine, data, lanes):
    return engine.encode(data, lane_count=lanes, capacity=2 * len(data) + 64)


@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_what_is_in_the_dictionary_costs_next_to_nothing(tiny, engine, lanes):
    data = TEXT[400:2400]
    with_it, without = coded(engine, data, lanes), coded(Engine(tiny), data, lanes)
    assert len(with_it.payload) < 0.25 * len(without.payload)
    assert engine.decode(with_it.payload, with_it.lane_bytes) == data


@given(data=st.one_of(st.binary(min_size=1, max_size=200), st.just(TEXT[:300])), lanes=st.sampled_from([1, 2, 4]))
def test_round_trip_of_any_bytes(engine, data, lanes):
    result = coded(engine, data, lanes)
    assert engine.decode(result.payload, result.lane_bytes) == data


def test_payload_is_the_same_for_all_threads_stretches_and_carriers(model):
    data = TEXT[1000:1800] + words(300)
    settings = [{"threads": 1}, {"threads": 2, "carrier": "float32", "stretch_rows": 8}, {"threads": 3}]
    engines = [Engine(model, **setting) for setting in settings]
    results = [coded(engine, data, 4) for engine in engines]
    assert len({result.payload for result in results}) == 1
    for engine in engines:
        assert engine.decode(results[0].payload, results[0].lane_bytes) == data


def test_the_dictionary_lies_behind_all_lanes_as_if_coded(tiny, engine):
    history = engine.begin_walk([10, 0, 7]).history
    lane = history.lanes[3]
    assert (lane["start"], lane["at"], lane["end"]) == (17, 17 + len(TEXT), 17 + len(TEXT))
    stretch = history.text[17 : 17 + len(TEXT)]
    assert stretch.astype(np.uint8).tobytes() == TEXT
    lengths = tiny.tokenizer.byte_lengths(tiny.tokenizer.encode(TEXT))
    assert np.array_equal(np.flatnonzero(stretch >= TOKEN_BEGINS), np.cumsum(lengths) - lengths)
    assert history.lanes["at"][:3].tolist() == [0, 10, 10]


@given(payload=st.binary(min_size=1, max_size=300), lane_bytes=st.lists(st.integers(0, 500), min_size=1, max_size=4))
def test_any_payload_ends_in_bytes_or_an_error(engine, payload, lane_bytes):
    try:
        out = engine.decode(payload, lane_bytes)
    except FormatError:
        return
    assert len(out) == sum(lane_bytes)


def test_a_frame_of_a_model_with_a_dictionary_needs_it(tiny, engine):
    data = TEXT[:500]
    result = coded(engine, data, 1)
    with contextlib.suppress(FormatError):
        assert Engine(tiny).decode(result.payload, result.lane_bytes) != data
