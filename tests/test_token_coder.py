import gc
import threading

import pytest
from helpers import coded
from hypothesis import given
from hypothesis import strategies as st
from networks import tiny_model_file
from texts import HARD, noise, words

from llmzip.coding.token_coder import TokenCoder
from llmzip.errors import FormatError
from llmzip.model.file import parse


@pytest.fixture(scope="module", params=[b"", words(60, seed=5)], ids=["no dictionary", "dictionary"])
def token_coder(request):
    return TokenCoder(parse(tiny_model_file(dictionary=request.param)), threads=2)


@pytest.mark.parametrize("lanes", [1, 2, 8, 64])
@pytest.mark.parametrize("kind", HARD)
def test_round_trip_of_hard_texts(token_coder, kind, lanes):
    data = HARD[kind]
    result = coded(token_coder, data, lanes)
    assert sum(result.lane_bytes) == len(data)
    assert token_coder.decode(result.payload, result.lane_bytes) == data


@given(data=st.binary(min_size=1, max_size=400), lanes=st.sampled_from([1, 2, 4, 16]))
def test_round_trip_of_any_bytes(token_coder, data, lanes):
    result = coded(token_coder, data, lanes)
    assert token_coder.decode(result.payload, result.lane_bytes) == data


def test_payload_is_the_same_for_all_threads_segments_and_backends(tiny):
    data = words(1500) + "ü漢".encode() * 20
    settings = [
        {"threads": 1, "backend": "int16"},
        {"threads": 2, "backend": "int16", "segment_rows": 8},
        {"threads": 3, "backend": "float32", "segment_rows": 64},
        {"threads": 2, "backend": "int8", "segment_rows": 1},
    ]
    token_coders = [TokenCoder(tiny, **setting) for setting in settings]
    results = [coded(e, data, 8) for e in token_coders]
    assert len({r.payload for r in results}) == 1
    for e in token_coders:
        assert e.decode(results[0].payload, results[0].lane_bytes) == data


def test_payload_is_the_same_on_a_torch_device(tiny):
    data = words(200)
    result = coded(TokenCoder(tiny), data, 2)
    other = TokenCoder(
        tiny, threads=2, device="cpu:0"
    )  # a torch device; CUDA where there is one is tested in test_exact
    assert coded(other, data, 2) == result
    assert other.decode(result.payload, result.lane_bytes) == data


def test_noise_is_refused(token_coder):
    assert token_coder.encode(noise(3000)) is None


def test_truncations_are_refused_or_give_another_text(token_coder):
    """A cut payload may by chance be that of another text of the same length: then the checksum tells."""
    data = words(60)
    result = coded(token_coder, data, 2)
    accepted = 0
    for size in range(len(result.payload)):
        try:
            text = token_coder.decode(result.payload[:size], result.lane_bytes)
        except FormatError:
            continue
        assert text != data
        accepted += 1
    assert accepted <= 2


def test_surplus_bytes_are_refused(token_coder):
    result = coded(token_coder, words(60), 1)
    with pytest.raises(FormatError):
        token_coder.decode(result.payload + b"\0", result.lane_bytes)


@given(payload=st.binary(min_size=1, max_size=300), lane_bytes=st.lists(st.integers(0, 500), min_size=1, max_size=8))
def test_any_payload_ends_in_bytes_or_an_error(token_coder, payload, lane_bytes):
    try:
        out = token_coder.decode(payload, lane_bytes)
    except FormatError:
        return
    assert len(out) == sum(lane_bytes)


def test_progress_counts_every_byte(token_coder):
    data, seen = words(500), []
    result = token_coder.encode(data, lane_count=4, progress=seen.append)
    assert sum(seen) == len(data)
    seen.clear()
    token_coder.decode(result.payload, result.lane_bytes, progress=seen.append)
    assert sum(seen) == len(data)


def test_capacity_is_what_the_payload_may_take(token_coder):
    for data in (words(500), b"the the the the the the the the the"):
        payload = coded(token_coder, data, 1).payload
        assert token_coder.encode(data, lane_count=1, capacity=len(payload)).payload == payload
        assert token_coder.encode(data, lane_count=1, capacity=len(payload) - 1) is None
        # A short text, too, is coded if only that is shorter.
        assert (token_coder.encode(data, lane_count=1) is not None) == (len(payload) < len(data))


def test_lanes_that_a_whole_group_lacks(token_coder):
    data = words(30)
    result = coded(token_coder, data, 1)
    for lane_bytes in ([len(data), 0, 0, 0], [0, 0, 0, len(data)], [0, len(data), 0, 0]):
        assert token_coder.decode(result.payload, lane_bytes) == data
    with pytest.raises(FormatError):
        token_coder.decode(result.payload, [0] * 8)


def test_an_interrupt_leaves_no_thread_behind(token_coder):
    result = coded(token_coder, words(300), 8)
    before = threading.active_count()
    for turn in range(1, 6):  # of either thread
        turns = iter(range(turn))

        def stop(_size, turns=turns):
            if next(turns, None) is None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            token_coder.decode(result.payload, result.lane_bytes, progress=stop)
        with pytest.raises(KeyboardInterrupt):
            token_coder.encode(words(300), lane_count=8, progress=lambda size: stop(size, iter(())))
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 3])
def test_a_frame_that_cannot_be_decoded_leaves_nothing_behind(tiny, threads):
    """Not even until the garbage collector comes: a frame's tables take up to 300 MB."""
    token_coder = TokenCoder(tiny, threads=threads)
    result = coded(token_coder, words(300), 8)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(FormatError):
            token_coder.decode(result.payload[:20], result.lane_bytes)
        left = [thing for thing in gc.get_objects() if type(thing).__name__ == "_FrameDecoder"]
    finally:
        gc.enable()
    assert left == []
