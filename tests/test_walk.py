"""The walk with logits of our own: what it costs, and that both directions agree."""

from itertools import pairwise

import numpy as np
import pytest
from networks import tiny_tokenizer

from llmzip import coder, mixing, walk
from llmzip.tree import DecisionTree, bind_clusters, choose_clusters

WIDTH = 16


class Setting:
    """A random head over the tiny vocabulary, and everything a walk needs."""

    def __init__(self, clusters, steps, lanes, seed=0):
        rng = np.random.default_rng(seed)
        tokenizer = tiny_tokenizer()
        tree = DecisionTree.build(tokenizer.tokens)
        self.tree = bind_clusters(tree, choose_clusters(tree, np.ones(tree.size), clusters))
        self.lengths = tokenizer.byte_lengths(np.arange(tree.size)).astype(np.int32)
        weights = rng.integers(-63, 64, (tree.size, WIDTH)).astype(np.int8)
        cluster_weights = rng.integers(-63, 64, (clusters, WIDTH)).astype(np.int8)
        scales = [np.full(n, 1.0, np.float32) for n in (clusters, tree.size)]
        self.head = walk.new_head(weights, *scales)
        self.q = rng.integers(-127, 128, (steps, lanes, WIDTH)).astype(np.int16)
        self.scale = np.full((steps, lanes), 0.3, np.float32)
        self.acc1 = (self.q.astype(np.int32) @ cluster_weights.T.astype(np.int32)).astype(np.int32)
        self.tokens = rng.integers(0, tree.size, (steps, lanes)).astype(np.int32)
        self.steps, self.lanes = steps, lanes
        self.reset()

    def reset(self):
        nodes = len(self.tree.nodes)
        self.state = mixing.new_maps(nodes, self.tokens.size)
        self.work = walk.new_work(self.tree)
        self.previous = np.full((self.lanes, mixing.CONTEXTS - 1), -1, np.int32)

    def encode(self, stretch=1 << 30, capacity=1 << 20):
        self.reset()
        out, encoder = np.zeros(capacity, np.uint8), coder.new_encoder()
        for at in range(0, self.steps, stretch):
            part = slice(at, at + stretch)
            rows = self.tokens[part], self.acc1[part], self.q[part], self.scale[part]
            shared = self.head, self.tree, self.work, self.state, encoder, self.previous
            status = walk.encode_steps(*rows, *shared, out)
            if status != walk.OK:
                return status
        return out[: coder.finish(encoder, out)].tobytes()

    def decode(self, payload, bounds):
        self.reset()
        data = np.frombuffer(payload, np.uint8).copy()
        decoder = coder.new_decoder(data)
        left = np.where(self.tokens >= 0, self.lengths[self.tokens], 0).sum(0).astype(np.int64)
        tokens = np.full_like(self.tokens, -1)
        for t in range(self.steps):
            for a, b in pairwise(bounds):
                rows = self.acc1[t, a:b], self.q[t, a:b], self.scale[t, a:b]
                shared = self.head, self.tree, self.work, self.state, decoder, self.previous
                status = walk.decode_lanes(a, b, left, *rows, *shared, data, tokens[t], self.lengths)
                if status != walk.OK:
                    return status
        return tokens if coder.used_up(decoder, data) and not left.any() else None


@pytest.mark.parametrize("clusters", [1, 12, 100])
@pytest.mark.parametrize("lanes", [1, 2, 8, 64])
def test_decoder_follows_the_encoder_in_any_groups(clusters, lanes):
    setting = Setting(clusters, 128 // lanes + 3, lanes)
    setting.tokens[-1, lanes // 2 :] = -1
    payload = setting.encode()
    for bounds in ([0, lanes], [0, lanes // 2, lanes], [0, lanes // 3, lanes // 2, lanes]):
        assert np.array_equal(setting.decode(payload, bounds), setting.tokens)


def test_stretches_change_no_byte():
    setting = Setting(12, 70, 4)
    assert len({setting.encode(stretch) for stretch in (1, 7, 64, 100)}) == 1


def test_the_walk_itself_is_free():
    # Without the adaptive stage's opinion, a token costs -log2 of its share of both levels.
    setting = Setting(12, 300, 1)
    bits = 0.0
    table, starts = setting.head.exp2, setting.tree.starts
    for t in range(setting.steps):
        token = int(setting.tokens[t, 0])
        cluster = int(setting.tree.cluster_of[token])
        first, end = starts[cluster], starts[cluster + 1]
        rows = setting.head.weights[first:end].astype(np.int32) @ setting.q[t, 0].astype(np.int32)
        for acc, chosen in ((setting.acc1[t, 0], cluster), (rows, token - first)):
            logits = np.rint(acc.astype(np.float32) * np.float32(0.3)).astype(int)
            below = logits.max() - logits
            f = np.maximum(table[below & 4095] >> np.minimum(below >> 12, 31), 1)
            bits -= np.log2(f[chosen] / f.sum())
    cost = 0.0
    for t in range(setting.steps):
        work, token = setting.work, int(setting.tokens[t, 0])
        walk.running_sums(
            acc := setting.acc1[t, 0].copy(), np.float32(0.3), setting.head.cluster_scales, table, work.sums
        )
        node, level = 0, 1
        low, high = 0, int(work.sums[len(acc)])
        while node >= 0:
            mid, split, left, right = (int(x) for x in setting.tree.nodes[node, :4])
            if int(setting.tree.nodes[node, walk.ABOVE]) != level:
                cluster = int(setting.tree.cluster_of[mid])
                first, end = starts[cluster], starts[cluster + 1]
                acc = np.empty(end - first, np.int32)
                walk.multiply(setting.head.weights, first, setting.q[t, 0], acc)
                walk.running_sums(acc, np.float32(0.3), setting.head.token_scales[first:end], table, work.sums)
                low, high, level = 0, int(work.sums[end - first]), 0
            middle = int(work.sums[split])
            p1 = walk.probability(low, middle, high)
            bit = int(token >= mid)
            cost -= np.log2((p1 if bit else 65536 - p1) / 65536)
            low, high, node = (middle, high, right) if bit else (low, middle, left)
    assert cost == pytest.approx(bits, rel=0.02)


def test_a_full_buffer_is_reported():
    assert Setting(12, 50, 2).encode(capacity=60) == walk.OVERFLOW


@pytest.mark.parametrize("seed", range(30))
def test_any_payload_ends(seed):
    setting = Setting(12, 40, 4)
    payload = np.random.default_rng(seed).bytes(seed * 5 + 1)
    result = setting.decode(payload, [0, 4])
    assert result is None or isinstance(result, (int, np.ndarray))
