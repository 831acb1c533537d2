import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.mixing import CONTEXTS, LIMIT, enter, learn, new_maps, refine, squash_table, stretch_table
from llmzip.tree import BLOCK


def cost_of(bits, p1, maps, *, node=3, previous=(1, 2, 3)):
    """Return the bits that a sequence of decisions of one node costs."""
    total = 0.0
    for bit in bits:
        enter(np.array(previous, np.int32), maps)
        p = refine(p1, node, BLOCK + node, maps)
        assert 1 <= p <= 65535
        total -= np.log2((p if bit else 65536 - p) / 65536)
        learn(bit, maps)
    return total


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


def test_before_it_has_learned_the_model_has_its_say():
    for p1 in (1, 500, 32768, 60000, 65535):
        maps = new_maps(8, 100)
        enter(np.array([-1, -1, -1], np.int32), maps)
        assert (refine(p1, 0, 1, maps) > 32768) == (p1 > 32768)


def test_a_wrong_model_is_corrected():
    assert cost_of([1] * 500, 6000, new_maps(8, 500)) < 60


def test_a_right_and_sure_model_costs_next_to_nothing():
    assert cost_of([1] * 5000, 65535, new_maps(8, 5000)) < 1.5


def test_contexts_tell_apart_what_the_node_alone_cannot():
    maps = new_maps(8, 2000)
    total = 0.0
    for i in range(1000):
        total += cost_of([i & 1], 32768, maps, previous=(i & 1, 5, 5))
    assert total < 250


@given(st.lists(st.tuples(st.integers(1, 65535), st.integers(0, 6), st.integers(0, 1)), max_size=60))
def test_two_states_with_the_same_past_agree(sequence):
    one, two = new_maps(7, 50), new_maps(7, 50)
    for p1, node, bit in sequence:
        for maps in (one, two):
            enter(np.array([node, 1, -1], np.int32), maps)
        assert refine(p1, node, BLOCK + node, one) == refine(p1, node, BLOCK + node, two)
        learn(bit, one)
        learn(bit, two)


@pytest.mark.parametrize("tokens", [1, 1000, 1 << 22, 1 << 26])
def test_memory_is_bounded_whatever_the_frame(tokens):
    maps = new_maps(8, tokens)
    assert maps.slots.nbytes <= CONTEXTS * 16 << 20
