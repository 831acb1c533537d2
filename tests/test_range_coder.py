from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_coder import Encoder

from llmzip.coding import range_coder
from llmzip.jit import jit


def encode(decisions):
    state, out = range_coder.new_encoder(), np.zeros(2 * len(decisions) + 8, np.uint8)
    for p1, bit in decisions:
        range_coder.encode_bit(state, out, p1, bit)
    assert range_coder.bytes_at_most(state, 0) <= len(out)
    return out[: range_coder.finish(state, out)].tobytes()


def decode(payload, probabilities):
    data = np.frombuffer(payload, np.uint8).copy()
    state = range_coder.new_decoder(data)
    bits = [range_coder.decode_bit(state, data, p1) for p1 in probabilities]
    return bits, range_coder.used_up(state, data), range_coder.overread(state, data)


decisions = st.lists(
    st.tuples(st.one_of(st.integers(1, 65535), st.sampled_from([1, 65535, 32768])), st.integers(0, 1)), max_size=300
)


@given(decisions)
def test_round_trip_uses_exactly_the_payload(sequence):
    payload = encode(sequence)
    bits, used_up, overread = decode(payload, [p for p, _ in sequence])
    assert bits == [b for _, b in sequence]
    assert used_up
    assert not overread


@given(decisions)
def test_bytes_are_those_of_the_reference(sequence):
    reference = Encoder()
    for p1, bit in sequence:
        reference.encode(p1, bit)
    assert encode(sequence) == reference.finish()


@given(decisions)
def test_cost_is_the_information(sequence):
    share = Fraction(1)
    for p1, bit in sequence:
        share *= Fraction(p1 if bit else 65536 - p1, 65536)
    bits = share.denominator.bit_length() - share.numerator.bit_length()
    assert len(encode(sequence)) * 8 <= bits * 1.001 + 18


@pytest.mark.parametrize(("p1", "bit"), [(65535, 1), (1, 0), (65534, 1)])
def test_no_payload_holds_more_decisions_than_the_bound(p1, bit):
    """The cheapest decisions there are, of both kinds."""
    state, out = range_coder.new_encoder(), np.empty(1 << 16, np.uint8)
    count = 3_000_000
    encode_many(state, out, p1, bit, count)
    size = int(range_coder.finish(state, out))
    assert count <= range_coder.most_decisions(size) < 3 * count + 10_000_000 * (p1 == 65534)


@jit
def encode_many(state, out, p1, bit, count):
    for _ in range(count):
        range_coder.encode_bit(state, out, p1, bit)


def test_pinned_bytes():
    sequence = [(p * 7919 % 65535 + 1, int(p % 3 == 0)) for p in range(60)]
    assert encode(sequence).hex() == "00008fadbbbb9fbfa8e3fadb"
    assert encode([]).hex() == "00"


@pytest.mark.parametrize("kept_back", [1, 2, 3, 40])
def test_carry_runs_through_ff_bytes(kept_back):
    # The interval is kept around 80 00 00.. until so many bytes are open; then it goes to one side.
    sequence, state = [], Encoder()
    while state.shifts < kept_back:
        border = 1 << (8 * state.shifts + 31)
        sequence.append((40_000, int(state.low + (state.range * 40_000 >> 16) > border)))
        state.encode(*sequence[-1])
    below, above = [*sequence, (1, 1)], [*sequence, (65535, 0)]
    assert encode(below).startswith(b"\x7f" + b"\xff" * (kept_back - 1))
    assert encode(above).startswith(b"\x80" + b"\x00" * (kept_back - 1))
    for whole in (below, above):
        assert decode(encode(whole), [p for p, _ in whole])[0] == [bit for _, bit in whole]


@pytest.mark.parametrize("cut", [1, 2, 3, 10])
def test_a_short_payload_is_overread(cut):
    sequence = [(30000, i & 1) for i in range(200)]
    payload = encode(sequence)
    _, used_up, overread = decode(payload[:-cut], [p for p, _ in sequence])
    assert overread
    assert not used_up


def test_a_long_payload_is_not_used_up():
    sequence = [(30000, i & 1) for i in range(200)]
    _, used_up, overread = decode(encode(sequence) + b"\0", [p for p, _ in sequence])
    assert not used_up
    assert not overread


@given(decisions)
def test_room_for_the_payload_is_never_underestimated(sequence):
    state, out = range_coder.new_encoder(), np.zeros(2 * len(sequence) + 8, np.uint8)
    bound = range_coder.bytes_at_most(state, len(sequence))
    for done, (p1, bit) in enumerate(sequence):
        assert range_coder.bytes_at_most(state, len(sequence) - done) <= bound
        range_coder.encode_bit(state, out, p1, bit)
    last = range_coder.bytes_at_most(state, 0)
    assert range_coder.finish(state, out) <= last <= bound
