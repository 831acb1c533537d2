import numpy as np
import pytest

from llmzip.mixing.initial_state import InitialState
from llmzip.mixing.mixer import begin_token, learn, predict
from llmzip.mixing.state import new_mixer
from llmzip.mixing.text_buffer import append, new_text_buffer
from llmzip.vocabulary.tree import BLOCK, END, Decision


class Decisions:
    """One lane in which the same decision comes again and again, between bytes of our choice."""

    def __init__(self, *, model=True, size=20_000):
        self.buffer = new_text_buffer([size])
        self.lane = self.buffer.lanes[0]
        self.mixer = new_mixer(8, size, InitialState.untrained(model=model), model=model)

    def cost(self, bit, p1, *, node=3, byte=None, ending=False, guess=-1):
        """Return the bits that a decision costs."""
        begin_token(guess, self.lane, self.mixer)
        where = (2, END, 1) if ending else (0, 0, 1)
        p = predict(p1, node, Decision(BLOCK + node, *where), self.lane, self.buffer, self.mixer)
        assert 1 <= p <= 65535
        learn(bit, p1, node, self.mixer)
        if byte is not None:
            append(self.lane, byte, 0, self.buffer)
        return -np.log2((p if bit else 65536 - p) / 65536)


def test_before_it_has_learned_the_model_has_its_say():
    for p1 in (1, 500, 60000, 65535):
        cheap = Decisions().cost(int(p1 > 32768), p1)
        assert cheap < 1


@pytest.mark.parametrize("ending", [False, True])
def test_a_wrong_model_is_corrected(ending):
    decisions = Decisions()
    assert sum(decisions.cost(1, 6000, ending=ending) for _ in range(500)) < 60


def test_a_right_and_sure_model_costs_next_to_nothing():
    decisions = Decisions()
    assert sum(decisions.cost(1, 65535) for _ in range(5000)) < 3


def test_bytes_tell_apart_what_the_node_alone_cannot():
    decisions = Decisions()
    costs = [decisions.cost((i // 2) & 1, 32768, byte=97 + ((i + 1) // 2 & 1)) for i in range(2000)]
    assert sum(costs[1000:]) < 50


def test_what_the_model_guesses_tells_apart_what_the_node_alone_cannot():
    decisions = Decisions()
    costs = [decisions.cost(i // 2 & 1, 32768, guess=5 + (i // 2 & 1)) for i in range(2000)]
    assert sum(costs[1000:]) < 50


def test_it_does_without_a_model():
    decisions = Decisions(model=False)
    costs = [decisions.cost(i & 1, 0, byte=97 + (i + 1 & 1)) for i in range(2000)]
    assert sum(costs[1000:]) < 50


def test_two_states_with_the_same_past_agree():
    rng = np.random.default_rng(3)
    one, two = Decisions(), Decisions()
    for _ in range(300):
        bit, p1, node, byte = (int(rng.integers(0, n)) for n in (2, 65536, 7, 256))
        assert one.cost(bit, p1, node=node, byte=byte) == two.cost(bit, p1, node=node, byte=byte)


def test_noise_costs_little_more_than_its_length():
    rng = np.random.default_rng(4)
    decisions = Decisions(model=False)
    bits = rng.integers(0, 2, 4000)
    assert sum(decisions.cost(int(bit), 0, byte=int(rng.integers(0, 256))) for bit in bits) < 1.03 * len(bits)


def test_every_lane_has_its_own_contexts():
    buffer = new_text_buffer([50, 50])
    one, two = buffer.lanes
    mixer = new_mixer(8, 100, InitialState.untrained(model=True), model=True)
    for lane, text in ((one, b"some text"), (two, b"other words")):
        for byte in text:
            append(lane, byte, 0, buffer)

    def contexts(lane):
        """Return the hashes after a decision at the beginning of a token, before any byte of it is known."""
        begin_token(-1, lane, mixer)
        predict(32768, 3, Decision(BLOCK + 3, 0, 0, 1), lane, buffer, mixer)
        return mixer.core[0]["bytes"].tolist()

    first = contexts(one)
    assert contexts(two) != first
    assert contexts(one) == first
