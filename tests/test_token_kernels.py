"""Tokens coded with made-up logits: what they cost, and that both directions agree."""

import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import reference_coder
from networks import tiny_tokenizer

from llmzip.coding import range_coder, token_kernels
from llmzip.mixing.initial_state import InitialState
from llmzip.mixing.state import new_mixer
from llmzip.mixing.text_buffer import new_text_buffer
from llmzip.network.head import Prediction, new_head, new_work
from llmzip.network.softmax import probability
from llmzip.vocabulary.tree import DecisionTree, bind_clusters, choose_clusters

WIDTH = 16


class Setting:
    """A random head over the tiny vocabulary, and everything that coding its tokens needs."""

    def __init__(self, clusters, steps, lanes, seed=0, dictionary=()):
        rng = np.random.default_rng(seed)
        tokenizer = tiny_tokenizer()
        tree = DecisionTree.build(tokenizer.tokens)
        self.tree = bind_clusters(tree, choose_clusters(tree, np.ones(tree.size), clusters))
        self.lengths = tokenizer.byte_lengths(np.arange(tree.size)).astype(np.int32)
        weights = rng.integers(-63, 64, (tree.size, WIDTH)).astype(np.int8)
        cluster_weights = rng.integers(-63, 64, (clusters, WIDTH)).astype(np.int8)
        scales = [np.full(n, 1.0, np.float32) for n in (clusters, tree.size)]
        self.head = new_head(weights, *scales)
        self.q = rng.integers(-127, 128, (steps, lanes, WIDTH)).astype(np.int16)
        self.scale = np.full((steps, lanes), 0.3, np.float32)
        self.acc1 = (self.q.astype(np.int32) @ cluster_weights.T.astype(np.int32)).astype(np.int32)
        self.tokens = rng.integers(0, tree.size, (steps, lanes)).astype(np.int32)
        self.steps, self.lanes = steps, lanes
        self.dictionary = np.array(dictionary, np.int32)
        self.reset()

    def reset(self):
        lane_bytes = np.where(self.tokens >= 0, self.lengths[self.tokens], 0).sum(0).tolist()
        self.buffer = new_text_buffer([*lane_bytes, int(self.lengths[self.dictionary].sum())])
        token_kernels.append_tokens(self.dictionary, self.lanes, self.tree, self.buffer)
        start = InitialState.untrained(model=True)
        self.mixer = new_mixer(len(self.tree.nodes), sum(lane_bytes), start, model=True)
        self.tables = token_kernels.TokenTables(self.head, self.tree)
        self.frame = token_kernels.FrameState(self.buffer, self.mixer, new_work(self.tree))

    def prediction(self, steps=slice(None), lanes=slice(None)):
        """Return what the network predicts for a part of the rows."""
        return Prediction(*(np.ascontiguousarray(a[steps, lanes]) for a in (self.acc1, self.q, self.scale)))

    def encode(self, segment=1 << 30, capacity=1 << 20):
        self.reset()
        out, encoder = np.zeros(capacity, np.uint8), range_coder.new_encoder()
        for at in range(0, self.steps, segment):
            part = slice(at, at + segment)
            rows = self.tokens[part], self.prediction(part)
            status = token_kernels.encode_steps(*rows, self.tables, self.frame, encoder, out)
            if status != token_kernels.OK:
                return status
        return out[: range_coder.finish(encoder, out)].tobytes()

    def decode(self, payload, bounds):
        self.reset()
        data = np.frombuffer(payload, np.uint8).copy()
        decoder = range_coder.new_decoder(data)
        tokens = np.full_like(self.tokens, -1)
        for t in range(self.steps):
            for a, b in pairwise(bounds):
                rows = self.prediction(slice(t, t + 1), slice(a, b))
                status = token_kernels.decode_step(a, rows, self.tables, self.frame, decoder, data, tokens[t])
                if status != token_kernels.OK:
                    return status
        whole = (self.buffer.lanes["at"] == self.buffer.lanes["end"]).all()
        return tokens if range_coder.used_up(decoder, data) and whole else None


@pytest.mark.parametrize("clusters", [1, 12, 100])
@pytest.mark.parametrize("lanes", [1, 2, 8, 64])
def test_decoder_follows_the_encoder_in_any_groups(clusters, lanes):
    setting = Setting(clusters, 128 // lanes + 3, lanes)
    setting.tokens[-1, lanes // 2 :] = -1
    payload = setting.encode()
    for bounds in ([0, lanes], [0, lanes // 2, lanes], [0, lanes // 3, lanes // 2, lanes]):
        assert np.array_equal(setting.decode(payload, bounds), setting.tokens)


def test_segments_change_no_byte():
    setting = Setting(12, 70, 4)
    assert len({setting.encode(segment) for segment in (1, 7, 64, 100)}) == 1


def repetitive(setting, seed=0):
    """Replace the tokens by ones that the mixer can learn, some lanes ending early."""
    rng = np.random.default_rng(seed)
    shape = setting.tokens.shape
    setting.tokens[:] = np.where(rng.random(shape) < 0.7, np.arange(shape[0])[:, None] % 5 + 90, setting.tokens)
    setting.tokens[-1, 1:] = -1
    return setting


@pytest.mark.parametrize("clusters", [1, 12])
@pytest.mark.parametrize("dictionary", [[], [*range(90, 95)] * 9])
def test_bytes_are_those_of_the_reference(clusters, dictionary):
    setting = repetitive(Setting(clusters, 60, 3, dictionary=dictionary))
    head = setting.head.weights, setting.head.cluster_scales, setting.head.token_scales
    rows = setting.tokens, setting.acc1, setting.q, setting.scale
    starts = setting.tree.starts[:-1].tolist()
    assert reference_coder.encode(tiny_tokenizer().tokens, starts, *rows, head, dictionary) == setting.encode()


PROGRAM = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from test_token_kernels import Setting, repetitive

setting = repetitive(Setting(12, 30, 3))
payload = setting.encode()
assert np.array_equal(setting.decode(payload, [0, 1, 3]), setting.tokens)
print(hashlib.sha256(payload).hexdigest())
"""


def test_the_interpreter_gives_the_same_bytes_without_a_warning():
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(Path(__file__).parent)]
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hashlib.sha256(repetitive(Setting(12, 30, 3)).encode()).hexdigest()


@pytest.mark.parametrize("clusters", [1, 12])
def test_the_descent_of_the_tree_costs_nothing(clusters):
    # Without the mixer a token costs -log2 of its share of both levels, on average over the model's own
    # distribution: 16 bits are enough for the probability of a decision.
    setting = Setting(clusters, 1, 1)
    starts, nodes, size = setting.tree.starts.tolist(), setting.tree.nodes.tolist(), len(setting.lengths)
    scales = setting.head.cluster_scales, setting.head.token_scales

    def frequencies(acc, scales):
        return reference_coder.frequencies(acc.tolist(), setting.scale[0, 0], scales)

    def cumulated(f):
        return np.concatenate([[0], np.cumsum(f)]).tolist()

    upper = frequencies(setting.acc1[0, 0], scales[0])
    lower = []
    for first, end in pairwise(starts):
        products = setting.head.weights[first:end].astype(int) @ setting.q[0, 0].astype(int)
        lower.append(frequencies(products, scales[1][first:end]))
    ideal, cost = np.zeros(size), np.zeros(size)
    for token in range(size):
        cluster = int(setting.tree.cluster_of[token])
        within = token - starts[cluster]
        ideal[token] -= np.log2(upper[cluster] / sum(upper)) + np.log2(lower[cluster][within] / sum(lower[cluster]))
        node, level, sums = 0, 1, cumulated(upper)
        low, high = 0, sums[-1]
        while node >= 0:
            mid, split, left, right, above = nodes[node][:5]
            if above != level:
                level, sums = above, cumulated(lower[cluster])
                low, high = 0, sums[-1]
            p1 = probability(low, sums[split], high)
            bit = token >= mid
            cost[token] -= np.log2((p1 if bit else 65536 - p1) / 65536)
            low, high, node = (sums[split], high, right) if bit else (low, sums[split], left)
    share = 2.0**-ideal
    assert share.sum() == pytest.approx(1)
    assert (share * (cost - ideal)).sum() == pytest.approx(0, abs=0.001)


def test_a_full_buffer_is_reported():
    assert Setting(12, 50, 2).encode(capacity=60) == token_kernels.OVERFLOW


def test_a_full_buffer_is_not_written_beyond():
    setting = Setting(12, 200, 2)
    whole = len(setting.encode())
    for room in range(0, whole, 7):
        setting.reset()
        out = np.full(room + 64, 0xAA, np.uint8)
        shared = setting.tables, setting.frame, range_coder.new_encoder()
        rows = setting.tokens, setting.prediction()
        assert token_kernels.encode_steps(*rows, *shared, out[:room]) == token_kernels.OVERFLOW
        assert (out[room:] == 0xAA).all()


def test_a_truncated_payload_is_refused():
    setting = Setting(12, 40, 4)
    payload = setting.encode()
    for size in range(len(payload)):
        assert setting.decode(payload[:size], [0, 2, 4]) in (token_kernels.OVERREAD, token_kernels.TOO_LONG)


def test_a_payload_with_more_than_the_tokens_is_refused():
    setting = Setting(12, 40, 4)
    assert setting.decode(setting.encode() + b"\0", [0, 4]) is None


@pytest.mark.parametrize("seed", range(30))
def test_any_payload_ends(seed):
    # A lane of n bytes ends within n steps, whatever is read; then nothing more is decoded.
    setting = Setting(12, 64, 4)
    setting.tokens[:] = -1
    setting.tokens[:16] = ord("x")
    setting.reset()
    lanes = setting.buffer.lanes
    data = np.random.default_rng(seed).integers(0, 256, 40 * seed, np.uint8)
    decoder, tokens = range_coder.new_decoder(data), np.full(4, -1, np.int32)
    shared = setting.tables, setting.frame, decoder
    for t in range(33):
        before = lanes["at"].copy()
        rows = setting.prediction(slice(t, t + 1))
        status = token_kernels.decode_step(0, rows, *shared, data, tokens)
        assert ((tokens >= -1) & (tokens < len(setting.lengths))).all()
        if status != token_kernels.OK:
            assert status in (token_kernels.OVERREAD, token_kernels.TOO_LONG)
            return
        assert (lanes["at"] > before)[before < lanes["end"]].all()
        assert (lanes["at"] <= lanes["end"]).all()
    assert (lanes["at"] == lanes["end"]).all()
