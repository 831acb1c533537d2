"""From tokens to a payload in plain Python: the decision tree, frequencies, adaptive stage and coder.

Written to be read beside docs/FORMAT.md and to be compared with: slow, without tables made for speed,
and with big integers where the package keeps pieces of them.
"""

from itertools import accumulate
from math import isqrt

import numpy as np

BLOCK_LEVELS = 4
BLOCK = 16
MASK32 = 0xFFFFFFFF
A, B = 0x2C1B3C6D, 0x297A2D39


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


def squash(x):
    if x < 0:
        return 65536 - squash(-x)
    e = EXP2[(x << 4) & 4095] >> (x >> 8)
    return min((((1 << 41) // ((1 << 24) + e)) + 1) >> 1, 65535)


STRETCH = [-4095] * 65536
for _x in range(-4095, 4096):
    for _p in range(squash(_x - 1) + 1 if _x > -4095 else 0, squash(_x) + 1):
        STRETCH[_p] = _x


class Slot:
    """Remember one context: the probability of 1 in 15 bits, decisions seen, and the last of them."""

    def __init__(self, check):
        self.check, self.p, self.count, self.history = check, 1 << 14, 0, ""

    def learn(self, bit):
        self.p += (((bit << 15) - bit - self.p) * ((2 << 16) // (2 * self.count + 3))) >> 16
        self.count = min(self.count + 1, 15)
        self.history = (self.history + str(bit))[-5:]


class Adaptive:
    """Hold what the frame has taught about decisions."""

    def __init__(self, frame_tokens):
        self.size = 1 << min(max((32 * frame_tokens).bit_length(), 14), 22)
        self.slots, self.histories, self.weights, self.maps = {}, {}, {}, {}

    def history(self, context, bits):
        """Return the adaptive probability, 22 bits, of 1 after the bits of a history."""
        seen = [2 * 5**5, 2 * 5**5]
        for age, bit in enumerate(reversed(bits)):
            seen[int(bit)] += 2**context * 5 * 4**age * 5 ** (5 - age)
        return self.histories.get((context, bits), (seen[1] << 22) // sum(seen))

    def slot(self, context, hashed, place):
        value = (((hashed + (place // BLOCK) * B) & MASK32) * A) & MASK32
        value ^= value >> 15
        position = ((value >> 8) & (self.size - BLOCK)) + (((value >> 4) ^ place) % BLOCK)
        slot = self.slots.get((context, position))
        if slot is None or slot.check != value & 255:
            slot = self.slots[context, position] = Slot(value & 255)
        return slot

    def code(self, p1, node, place, previous, code_bit):
        """Refine the model's `p1`, call `code_bit` with the result, learn the bit it returns and return that."""
        slots, hashed = [], 0
        for context in range(4):
            slots.append(self.slot(context, hashed, place))
            if context < 3:
                hashed = ((hashed + previous[context] + 2) * A) & MASK32
                hashed ^= hashed >> 15
        inputs = [STRETCH[p1]]
        for context, slot in enumerate(slots):
            known = slot.count > 0
            inputs.append(STRETCH[2 * slot.p + 1] if known else 0)
            inputs.append(STRETCH[self.history(context, slot.history) >> 6] if known else 0)
        chosen = tuple((s.count > 0) + (s.count > 1) + (s.count > 4) for s in slots[1:])
        first = [(26, 6, 8), (16, 5, 8), (13, 3, 7), (10, 2, 6)][sum(level > 0 for level in chosen)]
        start = [first[0] << 11] + [first[1] << 11] * 2 + [first[2] << 11] * 6
        weights = self.weights.setdefault(chosen, start)
        x = sum(w * i for w, i in zip(weights, inputs, strict=True)) >> 16
        x = min(max(x, -4095), 4095)
        row = self.maps.setdefault(node, [squash(min(max(e, -4095), 4095)) << 6 for e in range(-4096, 4097, 512)])
        entry, part = divmod(x + 4096, 512)
        mapped = (row[entry] * (512 - part) + row[entry + 1] * part) >> 15
        bit = code_bit(min(max((squash(x) + mapped) >> 1, 1), 65535))

        error = (bit << 16) - squash(x)
        for i in range(9):
            changed = weights[i] + ((inputs[i] * error + (1 << 17)) >> 18)
            weights[i] = min(max(changed, -8 << 16), 8 << 16)
        target = (bit << 22) - bit
        for context, slot in enumerate(slots):
            if slot.count > 0:
                p = self.history(context, slot.history)
                self.histories[context, slot.history] = p + ((target - p) >> 7)
            slot.learn(bit)
        for which, share in ((entry, 512 - part), (entry + 1, part)):
            row[which] += ((target - row[which]) * share) >> 14
        return bit


class Tree:
    """Number the decisions in preorder: ``decisions[lo, hi]`` is (number, place, first token of bit 1)."""

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

    def visit(self, lo, hi, level, place):
        if hi - lo < 2:
            return
        number = len(self.decisions)
        if place is None:
            place = number * BLOCK + 1
        mid = self.split(lo, hi)
        self.decisions[lo, hi] = number, place, mid
        for bit, (a, b) in enumerate(((lo, mid), (mid, hi))):
            in_block = (level + 1) % BLOCK_LEVELS
            heap = 2 * (place % BLOCK) + bit
            self.visit(a, b, level + 1, place // BLOCK * BLOCK + heap if in_block else None)


def cumulated(numbers):
    return [0, *accumulate(numbers)]


def code_token(tree, starts, totals_of, previous, adaptive, code_bit):
    """Take the decisions down to a token and return it.

    ``totals_of(None)`` gives the clusters' frequencies, ``totals_of(c)`` those of the tokens of cluster c;
    ``code_bit(p1, mid)`` codes the decision whether the token is >= mid and returns the bit.
    """
    lo, hi = 0, len(tree.tokens)
    sums = dict(zip([*starts, hi], cumulated(totals_of(None)), strict=True))
    inside = False
    while hi - lo > 1:
        number, place, mid = tree.decisions[lo, hi]
        if not inside and not any(lo < start < hi for start in starts):
            inside = True
            cluster = max(c for c, start in enumerate(starts) if start <= lo)
            sums = dict(enumerate(cumulated(totals_of(cluster)), starts[cluster]))
        p1 = min(max(((sums[hi] - sums[mid]) << 16) // (sums[hi] - sums[lo]), 1), 65535)
        bit = adaptive.code(p1, number, place, previous, lambda p, m=mid: code_bit(p, m))
        lo, hi = (mid, hi) if bit else (lo, mid)
    return lo


def encode(vocabulary, starts, grid, acc1, q, scale, head):
    """Return the payload of the tokens `grid` ``[T, B]``, -1 where a lane has ended.

    Args:
        vocabulary: the tokens as byte strings.
        starts: the clusters' first tokens.
        acc1, q, scale: the network's products ``[T, B, C]``, rows ``[T, B, d]`` and their scales ``[T, B]``.
        head: weights ``[V, d]``, scales of the clusters and of the tokens.
    """
    tree, adaptive, encoder = Tree(vocabulary), Adaptive(grid.size), Encoder()
    weights, cluster_scales, token_scales = head
    ends = [*starts[1:], len(vocabulary)]
    last = [[-1, -1, -1] for _ in range(grid.shape[1])]
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

        def code_bit(p1, mid, token=token):
            encoder.encode(p1, int(token >= mid))
            return int(token >= mid)

        assert code_token(tree, starts, totals_of, last[lane], adaptive, code_bit) == token
        last[lane] = [token, *last[lane][:2]]
    return encoder.finish()
