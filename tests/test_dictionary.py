"""A model's dictionary: every frame begins as if it had seen that text."""

import contextlib
import io

import numpy as np
import pytest
from helpers import coded
from hypothesis import given
from hypothesis import strategies as st
from networks import tiny_model_file
from texts import words

import llmzip
from llmzip.api import stream
from llmzip.coding import token_kernels
from llmzip.coding.byte_coder import ByteCoder
from llmzip.coding.token_coder import TokenCoder
from llmzip.errors import FormatError
from llmzip.mixing.text_buffer import TOKEN_BEGINS, new_text_buffer
from llmzip.model.file import parse
from llmzip.model.registry import initial_state_for_bytes
from llmzip.tools.inspection import inspect

TEXT = words(900, seed=3) + "größer, Łódź\n".encode() * 3


@pytest.fixture(scope="module")
def model():
    return parse(tiny_model_file(dictionary=TEXT))


@pytest.fixture(scope="module")
def token_coder(model):
    return TokenCoder(model)


@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_what_is_in_the_dictionary_costs_next_to_nothing(tiny, token_coder, lanes):
    data = TEXT[400:2400]
    with_it, without = coded(token_coder, data, lanes), coded(TokenCoder(tiny), data, lanes)
    assert len(with_it.payload) < 0.25 * len(without.payload)
    assert token_coder.decode(with_it.payload, with_it.lane_bytes) == data


@given(data=st.one_of(st.binary(min_size=1, max_size=200), st.just(TEXT[:300])), lanes=st.sampled_from([1, 2, 4]))
def test_round_trip_of_any_bytes(token_coder, data, lanes):
    result = coded(token_coder, data, lanes)
    assert token_coder.decode(result.payload, result.lane_bytes) == data


def test_payload_is_the_same_for_all_threads_segments_and_backends(model):
    data = TEXT[1000:1800] + words(300)
    settings = [{"threads": 1}, {"threads": 2, "backend": "float32", "segment_rows": 8}, {"threads": 3}]
    token_coders = [TokenCoder(model, **setting) for setting in settings]
    results = [coded(token_coder, data, 4) for token_coder in token_coders]
    assert len({result.payload for result in results}) == 1
    for token_coder in token_coders:
        assert token_coder.decode(results[0].payload, results[0].lane_bytes) == data


def test_the_dictionary_lies_behind_all_lanes_as_if_coded(tiny, token_coder):
    buffer = token_coder.new_text_buffer([10, 0, 7])
    lane = buffer.lanes[3]
    assert (lane["start"], lane["at"], lane["end"]) == (17, 17 + len(TEXT), 17 + len(TEXT))
    segment = buffer.text[17 : 17 + len(TEXT)]
    assert segment.astype(np.uint8).tobytes() == TEXT
    lengths = tiny.tokenizer.byte_lengths(tiny.tokenizer.encode(TEXT))
    assert np.array_equal(np.flatnonzero(segment >= TOKEN_BEGINS), np.cumsum(lengths) - lengths)
    assert buffer.lanes["at"][:3].tolist() == [0, 10, 10]


def test_a_frame_of_a_model_with_a_dictionary_needs_it(tiny, token_coder):
    data = TEXT[:500]
    result = coded(token_coder, data, 1)
    with contextlib.suppress(FormatError):
        assert TokenCoder(tiny).decode(result.payload, result.lane_bytes) != data


@pytest.mark.parametrize("lane_bytes", [[10, 0, 7], [100_000], [3000, 2999], [1], [100_000, 5]])
def test_a_history_that_was_kept_is_the_one_that_reading_makes(token_coder, lane_bytes):
    begun = token_coder.new_text_buffer(lane_bytes)  # one token_coder for all: some need tables of another size
    read = new_text_buffer([*lane_bytes, len(TEXT)])
    token_kernels.append_tokens(token_coder.tokenizer.encode(TEXT), len(lane_bytes), token_coder.tree, read)
    for name in ("text", "matches"):
        assert np.array_equal(getattr(begun, name), getattr(read, name)), name
    assert np.array_equal(begun.lanes[["start", "at", "end"]], read.lanes[["start", "at", "end"]])


def test_frames_of_one_engine_do_not_see_each_other(token_coder, model):
    first, second = TEXT[:700], b"Something else. " * 40
    before = coded(token_coder, first, 2)
    coded(token_coder, second, 1)
    assert coded(token_coder, first, 2) == before == coded(TokenCoder(model), first, 2)


def test_archives_of_several_frames(tmp_path, monkeypatch):
    path = tmp_path / "own.safetensors"
    path.write_bytes(tiny_model_file(dictionary=TEXT))
    monkeypatch.setattr(stream, "FRAME_BYTES", 1000)
    data = TEXT[500:3500] + words(200)
    archive = llmzip.compress(data, model=str(path))
    assert llmzip.get_frame_info(archive).decompressed_size == 1000
    monkeypatch.setenv("LLMZIP_MODEL_PATH", str(tmp_path))
    assert llmzip.decompress(archive) == data
    with llmzip.open(io.BytesIO(archive)) as file:
        file.seek(2345)
        assert file.read(700) == data[2345:3045]


def test_inspect_does_not_show_the_dictionary(token_coder):
    secret = TEXT[1000:1100]
    found = inspect(token_coder, ByteCoder(initial_state_for_bytes()[0]), secret + b" Between. " + secret)
    half = len(secret) + 10
    at, hidden, shown = 0, 0, 0
    for token in found.tokens:
        if token.match_length > 12:
            if at < half:
                assert token.match == b""
                hidden += 1
            shown += token.match != b""
        at += len(token.text)
    assert hidden > 5
    assert shown > 5  # repeats in the text itself are
