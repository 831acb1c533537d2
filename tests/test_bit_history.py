import itertools

import numpy as np

from llmzip.mixing.bit_history import COUNT_BITS, STATES, adapted, history_tables, learning_rate_table
from llmzip.mixing.logistic import LIMIT, squash_table, stretch_table


def test_squash_is_the_logistic_function():
    x = np.arange(-LIMIT, LIMIT + 1)
    exact = np.clip(65536 / (1 + 2.0 ** (-x / 256)), 1, 65535)
    assert np.abs(squash_table() - exact).max() <= 1


def test_stretch_inverts_squash():
    squash = squash_table()
    stretch = stretch_table(squash).astype(int)
    p = np.arange(1, 65536)
    assert (squash[stretch[p] + LIMIT] >= p).all()
    assert (squash[np.maximum(stretch[p] - 1, -LIMIT) + LIMIT] <= p).all()


def follow(bits):
    successors, _ = history_tables()
    state = 0
    for bit in bits:
        state = int(successors[state, bit])
    return state


def expected(state):
    return float(history_tables()[1][state]) / 2**32


def test_a_history_never_leads_back_to_nothing():
    successors, _ = history_tables()
    reachable = {0}
    while True:
        more = reachable | {int(s) for state in reachable for s in successors[state]}
        if more == reachable:
            break
        reachable = more
    assert 150 < len(reachable) <= STATES
    assert not any(0 in successors[state] for state in reachable)


def test_short_histories_are_exact():
    seen = {follow(bits) for length in range(5) for bits in itertools.product((0, 1), repeat=length)}
    assert len(seen) == 31


def test_histories_know_what_came_more_often():
    assert expected(follow([0] * 40)) < 0.02
    assert expected(follow([1] * 40)) > 0.98
    assert expected(follow([0, 1] * 10)) < 0.6
    assert expected(follow([1, 1, 1, 0] * 5)) > 0.55


def test_new_evidence_outweighs_old():
    assert expected(follow([1] * 40 + [0] * 4)) < 0.65


def test_histories_are_symmetric():
    rng = np.random.default_rng(1)
    for _ in range(50):
        bits = rng.integers(0, 2, rng.integers(1, 60))
        assert abs(expected(follow(bits)) + expected(follow(1 - bits)) - 1) < 1e-6


def test_an_adaptive_probability_averages_then_forgets():
    rates, entry = learning_rate_table(), 1 << 31
    for _ in range(20):
        entry = int(adapted(entry, 1, rates, 255))
    assert entry & ((1 << COUNT_BITS) - 1) == 20
    assert 0.95 < entry / 2**32 < 1
    for _ in range(1000):
        entry = int(adapted(entry, 0, rates, 255))
    assert entry & ((1 << COUNT_BITS) - 1) == 255
    assert entry / 2**32 < 0.01
    for _ in range(100_000):
        entry = int(adapted(entry, 1, rates, 255))
        assert 0 <= entry < 2**32
