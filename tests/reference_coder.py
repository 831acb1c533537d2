"""From tokens to a payload in plain Python: the decision tree, frequencies, order of learning and coder.

Written to be read beside docs/FORMAT.md and to be compared with: slow, without tables made for speed,
and with big integers where the package keeps pieces of them. Only the mixer is the package's own.
"""

from itertools import accumulate
from math import isqrt

import numpy as np

from llmzip.mixing.initial_state import InitialState
from llmzip.mixing.mixer import begin_token, learn, predict
from llmzip.mixing.state import new_mixer
from llmzip.mixing.text_buffer import append, new_text_buffer
from llmzip.vocabulary.tree import Decision

BLOCK_LEVELS = 4
BLOCK = 16


class Encoder:
    """Keep the interval as big integers; nothing is written before the end, so there are no carries."""

    def __init__(self):
        self.low, self.range, self.shifts = 0, 1 << 32, 0

    def encode(self, p1, bit):
        bound = (self.range * p1) >> 16
        if bit:
            self.range = bound
        else:
            self.low, self.range = self.low + bound, self.range - bound
        while self.range < 1 << 24:
            self.low, self.range, self.shifts = self.low << 8, self.range << 8, self.shifts + 1

    def finish(self):
        """Return the bytes of the one value in the interval whose lowest 24 bits, left out, are zero."""
        return ((self.low + 0xFFFFFF) >> 24).to_bytes(self.shifts + 1, "big")


def exp2():
    """Return 2^24 * 2^(-k / 4096), rounded, for k = 0 .. 4095."""
    one = 1 << 128
    root = one >> 1
    for _ in range(12):
        root = isqrt(root * one)
    powers = [one]
    while len(powers) < 4096:
        powers.append((powers[-1] * root) >> 128)
    return [((power >> 103) + 1) >> 1 for power in powers]


EXP2 = exp2()


def frequencies(products, scale, scales):
    """Return the frequencies of choices from their integer products; the scales are float32."""
    logits = []
    for product, column in zip(products, scales, strict=True):
        x = np.float32(np.float32(product) * scale) * column
        logits.append(int(np.rint(min(max(x, np.float32(-(2**20))), np.float32(2**20)))))
    below = [max(logits) - logit for logit in logits]
    return [max(1, EXP2[d & 4095] >> min(d >> 12, 31)) for d in below]


class Tree:
    """Number the decisions in preorder: ``decisions[lo, hi]`` is (number, node_index, first token of bit 1)."""

    def __init__(self, tokens):
        self.tokens, self.decisions = tokens, {}
        self.visit(0, len(tokens), 0, None)

    def split(self, lo, hi):
        """Return the first token of bit 1 among the tokens ``lo <= t < hi``."""
        bits = ["".join(f"{byte:08b}" for byte in self.tokens[t]) for t in range(lo, hi)]
        if bits[-1].startswith(bits[0]):
            return lo + 1
        at = next(i for i, (a, b) in enumerate(zip(bits[0], bits[-1], strict=False)) if a != b)
        return lo + next(i for i, text in enumerate(bits) if text[at] == "1")

    def visit(self, lo, hi, level, node_index):
        if hi - lo < 2:
            return
        number = len(self.decisions)
        if node_index is None:
            node_index = number * BLOCK + 1
        mid = self.split(lo, hi)
        self.decisions[lo, hi] = number, node_index, mid
        for bit, (a, b) in enumerate(((lo, mid), (mid, hi))):
            in_block = (level + 1) % BLOCK_LEVELS
            heap = 2 * (node_index % BLOCK) + bit
            self.visit(a, b, level + 1, node_index // BLOCK * BLOCK + heap if in_block else None)


def cumulated(numbers):
    return [0, *accumulate(numbers)]


def known_of(tokens, lo, hi):
    """Return what the tokens ``lo <= t < hi`` share: whole bytes, bits of the next one, those bits after a 1."""
    first, last = tokens[lo], tokens[hi - 1]
    bits = ["".join(f"{byte:08b}" for byte in token) for token in (first, last)]
    shared = next((i for i, (a, b) in enumerate(zip(*bits, strict=False)) if a != b), len(bits[0]))
    depth = shared // 8
    if shared == len(bits[0]):
        return depth, 8, 1
    return depth, shared % 8, int("1" + bits[0][8 * depth : shared], 2)


def code_token(tree, starts, totals_of, lane, history, mixer, code_bit):
    """Take the decisions down to a token and return it.

    ``totals_of(None)`` gives the clusters' frequencies, ``totals_of(c)`` those of the tokens of cluster c;
    ``code_bit(p, mid)`` codes the decision whether the token is >= mid and returns the bit.
    """
    lo, hi, known = 0, len(tree.tokens), 0
    sums = dict(zip([*starts, hi], cumulated(totals_of(None)), strict=True))
    inside = False
    likeliest = int(np.argmax(totals_of(None)))
    begin_token(starts[likeliest] + int(np.argmax(totals_of(likeliest))), lane, mixer)
    while hi - lo > 1:
        number, node_index, mid = tree.decisions[lo, hi]
        if not inside and not any(lo < start < hi for start in starts):
            inside = True
            cluster = max(c for c, start in enumerate(starts) if start <= lo)
            sums = dict(enumerate(cumulated(totals_of(cluster)), starts[cluster]))
        p1 = min(max(((sums[hi] - sums[mid]) << 16) // (sums[hi] - sums[lo]), 1), 65535)
        depth, bit, partial = known_of(tree.tokens, lo, hi)
        for i in range(known, depth):
            append(lane, tree.tokens[lo][i], 256 * (i == 0), history)
        known = depth
        decision = Decision(node_index, depth, bit, partial)
        came = code_bit(predict(p1, number, decision, lane, history, mixer), mid)
        learn(came, p1, number, mixer)
        lo, hi = (mid, hi) if came else (lo, mid)
    token = tree.tokens[lo]
    for i in range(known, len(token)):
        append(lane, token[i], 256 * (i == 0), history)
    lane["previous"] = [lo, *lane["previous"][:2]]
    return lo


def encode(vocabulary, starts, grid, acc1, q, scale, head, dictionary=()):
    """Return the payload of the tokens `grid` ``[T, B]``, -1 where a lane has ended.

    Args:
        vocabulary: the tokens as byte strings.
        starts: the clusters' first tokens.
        acc1, q, scale: the network's products ``[T, B, C]``, rows ``[T, B, d]`` and their scales ``[T, B]``.
        head: weights ``[V, d]``, scales of the clusters and of the tokens.
        dictionary: tokens of the text that is history before the first lane begins.
    """
    tree, encoder = Tree(vocabulary), Encoder()
    lane_bytes = [sum(len(vocabulary[t]) for t in lane if t >= 0) for lane in grid.T]
    history = new_text_buffer([*lane_bytes, sum(len(vocabulary[t]) for t in dictionary)])
    for token in dictionary:
        for i, byte in enumerate(vocabulary[token]):
            append(history.lanes[len(lane_bytes)], byte, 256 * (i == 0), history)
    mixer = new_mixer(len(vocabulary) - 1, sum(lane_bytes), InitialState.untrained(model=True), model=True)
    weights, cluster_scales, token_scales = head
    ends = [*starts[1:], len(vocabulary)]
    for step, lane in np.ndindex(*grid.shape):
        token = int(grid[step, lane])
        if token < 0:
            continue

        def totals_of(cluster, at=(step, lane)):
            if cluster is None:
                return frequencies(acc1[at].tolist(), scale[at], cluster_scales)
            rows = slice(starts[cluster], ends[cluster])
            products = weights[rows].astype(int) @ q[at].astype(int)
            return frequencies(products.tolist(), scale[at], token_scales[rows])

        def code_bit(p, mid, token=token):
            encoder.encode(p, int(token >= mid))
            return int(token >= mid)

        assert code_token(tree, starts, totals_of, history.lanes[lane], history, mixer, code_bit) == token
    return encoder.finish()
