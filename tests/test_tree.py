from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import tiny_tokenizer

from llmzip.vocabulary.tree import (
    BLOCK,
    BLOCK_LEVELS,
    END,
    LEFT,
    DecisionTree,
    bind_clusters,
    choose_clusters,
    most_bytes_per_decision,
)

vocabularies = st.sets(st.binary(min_size=1, max_size=5), min_size=2, max_size=60).map(sorted)


def common_prefix(a, b):
    return next((a[:i] for i in range(len(a)) if a[: i + 1] != b[: i + 1]), a)


def path(tree, token):
    """Return the decisions (node, bit) that lead to a token."""
    node, steps = 0, []
    while node >= 0:
        bit = int(token >= tree.mid[node])
        steps.append((node, bit))
        node = int(tree.right[node] if bit else tree.left[node])
    assert ~node == token
    return steps


@given(vocabularies)
def test_every_token_is_reached_by_its_own_bits(tokens):
    tree = DecisionTree.build(tokens)
    paths = [path(tree, t) for t in range(len(tokens))]
    assert max(map(len, paths)) == tree.height
    assert {n for steps in paths for n, _ in steps} == set(range(len(tokens) - 1))
    for token, steps in zip(tokens, paths, strict=True):
        for node, bit in steps:
            shared = common_prefix(tokens[tree.lo[node]], tokens[tree.hi[node] - 1])
            assert len(shared) == tree.depth[node]
            if tree.bit[node] == END:
                assert (token == shared) == (bit == 0)
            else:
                assert token[tree.depth[node]] >> (7 - tree.bit[node]) & 1 == bit


@given(vocabularies, st.randoms(use_true_random=False))
def test_conditional_probabilities_multiply_to_the_tokens(tokens, random):
    counts = [random.randint(1, 9) for _ in tokens]
    tree = DecisionTree.build(tokens)
    for token in range(len(tokens)):
        product = Fraction(1)
        for node, bit in path(tree, token):
            lo, mid, hi = (int(x[node]) for x in (tree.lo, tree.mid, tree.hi))
            product *= Fraction(sum(counts[mid:hi] if bit else counts[lo:mid]), sum(counts[lo:hi]))
        assert product == Fraction(counts[token], sum(counts))


def test_nodes_are_in_preorder():
    tree = DecisionTree.build(tiny_tokenizer().tokens)
    for node in range(tree.size - 1):
        children = [c for c in (tree.left[node], tree.right[node]) if c >= 0]
        if children:
            assert children[0] == node + 1
        assert all(c > node for c in children)


@given(vocabularies)
def test_places_are_distinct_and_a_walk_stays_in_a_block(tokens):
    tree = DecisionTree.build(tokens)
    assert len(set(tree.node_index.tolist())) == len(tokens) - 1
    for token in range(len(tokens)):
        places = [int(tree.node_index[node]) for node, _ in path(tree, token)]
        for i, node_index in enumerate(places):
            assert node_index // BLOCK == places[i - i % BLOCK_LEVELS] // BLOCK
            assert 0 < node_index % BLOCK < BLOCK


@given(vocabularies, st.randoms(use_true_random=False))
def test_the_cluster_of_the_largest_mass_times_size_is_split(tokens, random):
    counts = [random.randint(0, 9) for _ in tokens]
    tree = DecisionTree.build(tokens)
    node_of = {(int(lo), int(hi)): node for node, (lo, hi) in enumerate(zip(tree.lo, tree.hi, strict=True))}
    cut = [(0, len(tokens))]
    while True:
        assert choose_clusters(tree, counts, len(cut)).tolist() == [lo for lo, _ in cut]
        several = [(lo, hi) for lo, hi in cut if hi - lo > 1]
        if not several:
            break
        lo, hi = max(several, key=lambda r: (sum(counts[r[0] : r[1]]) * (r[1] - r[0]), -r[0]))
        mid = int(tree.mid[node_of[lo, hi]])
        cut = sorted({*cut} - {(lo, hi)} | {(lo, mid), (mid, hi)})


@pytest.mark.parametrize("clusters", [1, 2, 12, 100])
def test_chosen_clusters_are_subtrees_and_cover_the_vocabulary(clusters):
    tree = DecisionTree.build(tiny_tokenizer().tokens)
    starts = choose_clusters(tree, np.ones(tree.size), clusters)
    assert len(starts) == clusters
    bound = bind_clusters(tree, starts)
    for node in range(tree.size - 1):
        first, last = bound.cluster_of[tree.lo[node]], bound.cluster_of[tree.hi[node] - 1]
        mid, split, left, right, above, node_index, depth, bit, partial = bound.nodes[node].tolist()
        assert (mid, left, right, node_index) == (
            tree.mid[node],
            tree.left[node],
            tree.right[node],
            tree.node_index[node],
        )
        assert above == (first != last)
        assert (depth, bit) == (tree.depth[node], tree.bit[node])
        known = f"{tiny_tokenizer().tokens[mid][depth]:08b}"[:bit] if bit < END else ""
        assert partial == int("1" + known, 2)
        assert split == (bound.cluster_of[mid] if above else mid - bound.starts[first])
    assert bound.cluster_of.tolist() == (np.searchsorted(starts, np.arange(tree.size), "right") - 1).tolist()


TINY = tiny_tokenizer().tokens


@pytest.mark.parametrize("starts", [[1], [0, 0], [5, 0], [0, 3], [0, len(TINY)], [0, 10_000], [-1, 0], [[0]], []])
def test_other_cuts_are_refused(starts):
    tree = DecisionTree.build(TINY)
    with pytest.raises(ValueError, match="cluster"):
        bind_clusters(tree, starts)


@pytest.mark.parametrize("tokens", [[b"a"], [b"", b"a"], [b"b", b"a"], [b"a", b"a"]])
def test_other_vocabularies_are_refused(tokens):
    with pytest.raises(ValueError, match="token"):
        DecisionTree.build(tokens)


@given(vocabularies)
def test_bytes_per_decision(tokens):
    tree = bind_clusters(DecisionTree.build(tokens), [0])

    def depths(node, depth):
        for child in tree.nodes[node, LEFT : LEFT + 2].tolist():
            if child < 0:
                yield ~child, depth
            else:
                yield from depths(child, depth + 1)

    expected = max(len(tokens[token]) / depth for token, depth in depths(0, 1))
    assert most_bytes_per_decision(tree) == expected
