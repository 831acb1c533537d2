"""The buffer: nothing at or beyond a frontier is read, whatever the text and the lanes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.mixing.contexts import NEAR_BITS, byte_contexts
from llmzip.mixing.layout import BYTE_CONTEXTS, MATCHES
from llmzip.mixing.match import MATCH_LEAST, MATCH_STATES, follow, owner_of, state_of_match
from llmzip.mixing.text_buffer import append, new_text_buffer


def fill(text, lane_bytes, poison=None, *, model=True):
    """Write `text` into its lanes in turns; return what the lanes expected and their contexts at every byte.

    `poison` is written wherever nothing has been coded yet: it must change nothing.
    """
    buffer = new_text_buffer(lane_bytes)
    starts = np.cumsum([0, *lane_bytes[:-1]])
    if poison is not None:
        buffer.text[:] = poison
    seen = []
    for step in range(max(lane_bytes)):
        for lane, size in enumerate(lane_bytes):
            if step < size:
                hashes = np.zeros(BYTE_CONTEXTS, np.int64)
                byte_contexts(buffer.lanes[lane], buffer, model, hashes)
                seen.append((buffer.lanes[lane]["expected"].tolist(), hashes.tolist()))
                append(buffer.lanes[lane], text[starts[lane] + step], 0, buffer)
    return seen, buffer


LANES = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any)
TEXTS = st.one_of(
    st.binary(min_size=320, max_size=320), st.just(bytes(320)), st.just(b"abc" * 107), st.just(b"ab\n" * 107)
)


@given(TEXTS, LANES, st.booleans())
def test_what_is_not_coded_yet_is_never_read(text, lane_bytes, model):
    clean, _ = fill(text, lane_bytes, model=model)
    poisoned, _ = fill(text, lane_bytes, poison=0x1AA, model=model)
    assert clean == poisoned


@given(TEXTS, LANES)
def test_every_byte_arrives(text, lane_bytes):
    _, buffer = fill(text, lane_bytes)
    size = sum(lane_bytes)
    assert buffer.text[:size].astype(np.uint8).tobytes() == text[:size]
    assert buffer.lanes["at"].tolist() == buffer.lanes["end"].tolist()


def test_a_repeat_is_expected_in_full():
    text = bytes(np.random.default_rng(0).integers(0, 256, 200, np.uint8)) * 2
    seen, _ = fill(text, [400])
    for m in range(MATCHES):
        for at in range(200 + MATCH_LEAST[m], 400):
            assert seen[at][0][m] == text[at]


def test_a_repeat_goes_on_across_the_lanes_it_lies_in():
    block = bytes(np.random.default_rng(1).integers(0, 256, 64, np.uint8))
    buffer = new_text_buffer([32, 32, 64])
    for lane, part in ((0, block[:32]), (1, block[32:])):
        for byte in part:
            append(buffer.lanes[lane], byte, 0, buffer)
    hits = 0
    for byte in block:
        hits += buffer.lanes[2]["expected"][0] == byte
        append(buffer.lanes[2], byte, 0, buffer)
    assert hits == 64 - MATCH_LEAST[0]


def test_a_match_that_fails_is_given_up():
    rng = np.random.default_rng(2)
    text = bytes([*b"a repeat to be found" * 2, *rng.integers(128, 256, 100)])
    seen, _ = fill(text, [len(text)])
    assert seen[35][0][0] == text[35]
    assert seen[-1][0][0] == -1


def test_contexts_of_this_place_begin_anew_in_each_block():
    line, block = b"<b>the same; line\n", 1 << NEAR_BITS
    text = line * (5 * block // len(line))

    def alike(here, there, model):
        seen = fill(text, [len(text)], model=model)[0]
        return {i for i in range(BYTE_CONTEXTS) if seen[here][1][i] == seen[there][1][i]}

    first = 8 * len(line) + 14  # inside a word
    lines = block // len(line) * len(line)
    everywhere = set(range(BYTE_CONTEXTS)) - {9, 10, 12, 13}
    assert alike(first, first + len(line), True) == set(range(BYTE_CONTEXTS))
    assert alike(first, first + lines + len(line), True) == everywhere  # in the next block
    assert alike(first, first + 2 * lines + len(line), True) == everywhere - {0}
    assert alike(first, first + 4 * lines + len(line), True) == everywhere - {0, 1}
    assert alike(first, first + 4 * lines + len(line), False) == everywhere


@pytest.mark.parametrize(
    ("text", "cell", "marks"), [(b"a,b;c", 2, b"\0,;"), (b"a|b\n1:\t2 ", 2, b"\n:\t"), (b"\xc3\xa9 (x).", 0, b"().")]
)
def test_cells_and_marks_are_counted(text, cell, marks):
    lane = fill(text, [len(text)])[1].lanes[0]
    assert lane["cell"] == cell
    assert int(lane["marks"]).to_bytes(3, "big") == marks


def test_a_tag_is_known_until_the_next_one():
    tags = [
        int(fill(text, [len(text)])[1].lanes[0]["tag"])
        for text in (b"<li>", b"<li class=x>text", b"<li> a <b", b"x li")
    ]
    assert tags[0] == tags[1] != tags[2]
    assert tags[3] == 0


@given(st.integers(0, 65535), st.integers(0, 255), st.booleans(), st.integers(0, 1))
def test_states_of_matches_are_in_range(length, missed, ending, guess):
    buffer = new_text_buffer([10])
    lane = buffer.lanes[0]
    lane["length"][0], lane["missed"][0] = length, missed
    state, strength = state_of_match(lane, 0, ending, guess)
    assert 0 <= state < MATCH_STATES
    assert 0 <= strength <= 6


def test_every_position_has_its_lane():
    lanes = new_text_buffer([3, 0, 5, 1]).lanes
    owners = [owner_of(position, lanes) for position in range(9)]
    assert owners[:3] == [0, 0, 0]
    assert owners[3:8] == [2] * 5
    assert owners[8] == 3


@pytest.mark.parametrize("m", range(MATCHES))
def test_a_match_that_met_a_frontier_can_match_again(m):
    buffer = new_text_buffer([100, 200])
    one, two = buffer.lanes
    line = bytes(np.random.default_rng(6).integers(0, 256, 60, np.uint8))
    for byte in line:
        append(one, byte, 0, buffer)
    two["pointer"][m], two["length"][m], two["owner"][m] = 60, 60, 0  # at the frontier of the other lane
    follow(two, m, buffer)
    assert two["expected"][m] == -1
    for byte in line[:40]:
        append(two, byte, 0, buffer)
    assert two["expected"][m] & 255 == line[40]
