from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip import coder


class ReferenceEncoder:
    """The coder in exact fractions: the shortest multiple of 2^-8k inside the last interval, as FORMAT.md says."""

    def __init__(self):
        self.low, self.range, self.shifts = 0, 1 << 32, 0

    def encode(self, p1, bit):
        bound = self.range * p1 >> 16
        if bit:
            self.range = bound
        else:
            self.low, self.range = self.low + bound, self.range - bound
        while self.range < 1 << 24:
            self.low, self.range, self.shifts = self.low << 8, self.range << 8, self.shifts + 1

    def finish(self):
        value = (self.low + 0xFFFFFF >> 24) & ((1 << 8 * (self.shifts + 1)) - 1)
        return value.to_bytes(self.shifts + 1, "big")


def encode(decisions):
    state, out = coder.new_encoder(), np.zeros(2 * len(decisions) + 8, np.uint8)
    for p1, bit in decisions:
        coder.encode_bit(state, out, p1, bit)
    assert coder.bytes_at_most(state, 0) <= len(out)
    return out[: coder.finish(state, out)].tobytes()


def decode(payload, probabilities):
    data = np.frombuffer(payload, np.uint8).copy()
    state = coder.new_decoder(data)
    bits = [coder.decode_bit(state, data, p1) for p1 in probabilities]
    return bits, coder.used_up(state, data), coder.overread(state, data)


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
    reference = ReferenceEncoder()
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


def test_pinned_bytes():
    sequence = [(p * 7919 % 65535 + 1, p % 3 == 0) for p in range(60)]
    assert encode([(p, int(b)) for p, b in sequence]).hex() == PINNED


def test_carry_runs_through_ff_bytes():
    # Bit 0 with p = 65535 leaves the top 2^-16 of the interval: low fills with FF until a bit 0 carries.
    sequence = [(65535, 0)] * 6 + [(1, 1)] * 3 + [(1, 0)] * 40
    payload = encode(sequence)
    assert b"\xff\xff" in payload
    assert decode(payload, [p for p, _ in sequence])[0] == [b for _, b in sequence]


@pytest.mark.parametrize("cut", [1, 2, 3, 10])
def test_a_short_payload_is_overread(cut):
    sequence = [(30000, i & 1) for i in range(200)]
    payload = encode(sequence)
    _, used_up, overread = decode(payload[:-cut], [p for p, _ in sequence])
    assert overread
    assert not used_up


PINNED = "00008fadbbbb9fbfa8e3fadb"
