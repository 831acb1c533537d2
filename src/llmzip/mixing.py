"""The adaptive stage: what the text itself has taught about a decision, mixed with the model's view.

Each decision of a walk is looked up in four contexts: its node alone, and the node together with
one, two and three previous tokens of the lane. A context remembers in one *slot* an adaptive
probability of bit 1 and the last few bits that came; each such history, say "1, 1, 1", has an
adaptive probability of its own, learned from all slots that show it. These eight opinions and the
model's are weighted and added in the logistic domain; the weights are learned while coding, a set
for each degree of knowledge that the contexts have (Mahoney 2005, the PAQ family). Last, a map per
node corrects what the sum has been wrong about (the same family's adaptive probability map).

Everything is an integer. Probabilities are those of bit 1, in 16 bits unless said otherwise; a
*stretched* one is log2(p / (1 - p)) in units of 2^-8. All lanes share the state and pass through
it in the order of coding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.distribution import exp2_table
from llmzip.jit import jit
from llmzip.tree import BLOCK

LIMIT = 4095  # the largest stretched probability

# A slot has 32 bits: probability 15, count 4, history 5, check 8 (lowest). The count stops at 15;
# the history's lowest min(count, 5) bits are valid, the newest lowest. Count 0: nothing is known.
P_BITS = 15
COUNT_MAX = 15
HISTORY_BITS = 5
P_SHIFT, COUNT_SHIFT, HISTORY_SHIFT = 17, 13, 8
CHECK = 255
SLOTS_PER_TOKEN = 32  # in each context; a token takes 10 to 20 decisions
MIN_SLOT_BITS, MAX_SLOT_BITS = 14, 22

CONTEXTS = 4  # the node with 0 .. 3 previous tokens
INPUTS = 1 + 2 * CONTEXTS  # the model's, then probability and history of each context
SETS = 4 ** (CONTEXTS - 1)  # of weights, by what the contexts with tokens know, 0 .. 3 each
WEIGHT_BITS = 16
WEIGHT_MAX = 8 << WEIGHT_BITS
WEIGHT_SHIFT = 18  # rate of learning
# First weights in 2^-5, by the number of contexts with tokens that know something: of the model, of
# the node's two opinions, and of each opinion of the contexts with tokens.
FIRST_WEIGHTS = ((26, 6, 8), (16, 5, 8), (13, 3, 7), (10, 2, 6))

FINE_BITS = 22  # of the probabilities of histories and maps
HISTORY_RATE, MAP_RATE = 7, 5  # shifts
MAP_STEP_BITS = 9  # a map has entries at stretched probabilities 512 apart
MAP_ENTRIES = 17

MASK32 = 0xFFFFFFFF
# Odd and below 2^30: products with 32-bit values stay within int64.
MULTIPLIER_A, MULTIPLIER_B = 0x2C1B3C6D, 0x297A2D39

# Everything of a fixed size, as one record: passed by one pointer, which is faster than ten arrays.
CORE = np.dtype(
    [
        ("stretch", np.int16, (1 << 16,)),  # by probability
        ("squash", np.int32, (2 * LIMIT + 1,)),  # by stretched probability + LIMIT
        ("rates", np.int64, (COUNT_MAX + 1,)),  # by count, in 2^-16
        ("histories", np.int64, (CONTEXTS, 2 << HISTORY_BITS)),  # FINE_BITS, see history_table
        ("weights", np.int64, (SETS, INPUTS)),  # WEIGHT_BITS after the point
        ("hashes", np.int64, (CONTEXTS,)),  # of the previous tokens
        # From refine to learn:
        ("positions", np.int64, (CONTEXTS,)),  # of the slots
        ("inputs", np.int64, (INPUTS,)),
        ("set", np.int64),
        ("mixed", np.int64),  # the weighted sum, stretched
        ("node", np.int64),
    ],
    align=True,
)


class Maps(NamedTuple):
    """Hold the adaptive state of a frame.

    Attributes:
        core: CORE[1].
        slots: uint32[CONTEXTS, n], n a power of two.
        maps: int32[V - 1, MAP_ENTRIES] by node, FINE_BITS.
    """

    core: npt.NDArray[np.void]
    slots: npt.NDArray[np.uint32]
    maps: npt.NDArray[np.int32]


def squash_table() -> npt.NDArray[np.int32]:
    """Return int32[2 * LIMIT + 1]: 2^16 / (1 + 2^(-x / 256)) for x = -LIMIT .. LIMIT, in 1 .. 65535.

    In integers, for x >= 0, with e = 2^24 * 2^(-x / 256) from the table of frequencies: 2^41 divided
    by 2^24 + e, halved and rounded; and 2^16 less that for -x.
    """
    x = np.arange(LIMIT + 1)
    e = exp2_table().astype(np.int64)[(x << 4) & 4095] >> (x >> 8)
    upper = np.minimum((((1 << 41) // ((1 << 24) + e)) + 1) >> 1, 65535)
    return np.concatenate([65536 - upper[:0:-1], upper]).astype(np.int32)


def stretch_table(squash: npt.NDArray[np.int32]) -> npt.NDArray[np.int16]:
    """Return int16[65536], the inverse: the smallest x with squash(x) >= p, at most LIMIT."""
    x = np.searchsorted(squash, np.arange(1 << 16)) - LIMIT
    return np.minimum(x, LIMIT).astype(np.int16)


def history_table(context: int) -> npt.NDArray[np.int64]:
    """Return int64[2^(HISTORY_BITS + 1)], FINE_BITS: what is first thought to follow a history.

    The index is a 1 bit and the history's bits. A bit counts 5, one that came k bits before the last
    5 * (4/5)^k, and both values have 2 / 2^context to begin with: the more tokens a context holds,
    the surer it is of what it has seen.
    """
    table = np.zeros(2 << HISTORY_BITS, np.int64)
    for index in range(1, len(table)):
        seen = f"{index:b}"[1:]
        weight = [2 * 5**HISTORY_BITS, 2 * 5**HISTORY_BITS]
        for age, bit in enumerate(reversed(seen)):
            weight[int(bit)] += 2**context * 5 * 4**age * 5 ** (HISTORY_BITS - age)
        table[index] = (weight[1] << FINE_BITS) // sum(weight)
    return table


def first_weights() -> npt.NDArray[np.int64]:
    """Return int64[SETS, INPUTS], WEIGHT_BITS: the weights before anything is learned."""
    weights = np.empty((SETS, INPUTS), np.int64)
    for chosen in range(SETS):
        knowing = sum((chosen >> (2 * k)) & 3 > 0 for k in range(CONTEXTS - 1))
        model, node, tokens = FIRST_WEIGHTS[knowing]
        weights[chosen] = [model, node, node] + [tokens] * (INPUTS - 3)
    return weights << (WEIGHT_BITS - 5)


def new_maps(nodes: int, tokens: int) -> Maps:
    """Return the state before a frame of about `tokens` tokens, for a tree of `nodes` nodes."""
    bits = (SLOTS_PER_TOKEN * tokens).bit_length()
    bits = min(max(bits, MIN_SLOT_BITS), MAX_SLOT_BITS)
    squash = squash_table()
    core = np.zeros(1, CORE)
    core["squash"] = squash
    core["stretch"] = stretch_table(squash)
    core["rates"] = [(2 << 16) // (2 * n + 3) for n in range(COUNT_MAX + 1)]
    core["histories"] = [history_table(k) for k in range(CONTEXTS)]
    core["weights"] = first_weights()
    x = np.clip((np.arange(MAP_ENTRIES) << MAP_STEP_BITS) - LIMIT - 1, -LIMIT, LIMIT)
    identity = squash[x + LIMIT] << (FINE_BITS - 16)
    return Maps(
        core,
        np.zeros((CONTEXTS, 1 << bits), np.uint32),
        np.repeat(identity[None], nodes, axis=0),
    )


@jit
def enter(previous, maps):
    """Prepare for a token after `previous` int32[3], the lane's last tokens, the newest first."""
    core = maps.core[0]
    value = 0
    for k in range(CONTEXTS):
        core["hashes"][k] = value
        if k < len(previous):
            value = ((value + np.int64(previous[k]) + 2) * MULTIPLIER_A) & MASK32
            value ^= value >> 15


@jit
def history_of(slot, count):
    """Return the index of a slot's history among the histories."""
    seen = min(count, HISTORY_BITS)
    return (1 << seen) | ((slot >> HISTORY_SHIFT) & ((1 << seen) - 1))


@jit
def refine(p1, node, place, maps):
    """Return the final probability, 1 .. 65535, for the decision of `node` at `place`; the model says `p1`."""
    core, slots = maps.core[0], maps.slots
    stretch, inputs = core["stretch"], core["inputs"]
    inputs[0] = stretch[p1]
    chosen = 0
    for k in range(CONTEXTS):
        value = core["hashes"][k] + np.int64(place // BLOCK) * MULTIPLIER_B
        value = ((value & MASK32) * MULTIPLIER_A) & MASK32
        value ^= value >> 15
        # The slots of a block are neighbours, in an order that depends on the hash.
        position = ((value >> 8) & (slots.shape[1] - BLOCK)) | (((value >> 4) ^ place) & (BLOCK - 1))
        core["positions"][k] = position
        slot = np.int64(slots[k, position])
        if slot & CHECK != value & CHECK:
            # Another context's: start afresh in its place.
            slot = value & CHECK
            slots[k, position] = slot
        count = (slot >> COUNT_SHIFT) & COUNT_MAX
        if count == 0:
            inputs[2 * k + 1] = 0
            inputs[2 * k + 2] = 0
            known = 0
        else:
            inputs[2 * k + 1] = stretch[((slot >> P_SHIFT) << 1) | 1]
            fine = core["histories"][k, history_of(slot, count)]
            inputs[2 * k + 2] = stretch[fine >> (FINE_BITS - 16)]
            known = 1 if count == 1 else (2 if count < 5 else 3)
        if k > 0:
            chosen = (chosen << 2) | known
    total = 0
    for i in range(INPUTS):
        total += core["weights"][chosen, i] * inputs[i]
    mixed = min(max(total >> WEIGHT_BITS, -LIMIT), LIMIT)
    core["set"] = chosen
    core["mixed"] = mixed
    core["node"] = node
    entry, part = (mixed + LIMIT + 1) >> MAP_STEP_BITS, (mixed + LIMIT + 1) & ((1 << MAP_STEP_BITS) - 1)
    low, high = np.int64(maps.maps[node, entry]), np.int64(maps.maps[node, entry + 1])
    mapped = (low << MAP_STEP_BITS) + (high - low) * part
    mapped >>= MAP_STEP_BITS + FINE_BITS - 16
    return min(max((core["squash"][mixed + LIMIT] + mapped) >> 1, 1), 65535)


@jit
def learn(bit, maps):
    """Adapt what the last call of refine used to the `bit` that came."""
    core, slots = maps.core[0], maps.slots
    weights, inputs, histories = core["weights"][core["set"]], core["inputs"], core["histories"]
    error = (bit << 16) - core["squash"][core["mixed"] + LIMIT]
    for i in range(INPUTS):
        change = (inputs[i] * error + (1 << (WEIGHT_SHIFT - 1))) >> WEIGHT_SHIFT
        weights[i] = min(max(weights[i] + change, -WEIGHT_MAX), WEIGHT_MAX)
    target = (bit << FINE_BITS) - bit
    for k in range(CONTEXTS):
        position = core["positions"][k]
        slot = np.int64(slots[k, position])
        count = (slot >> COUNT_SHIFT) & COUNT_MAX
        p = 1 << (P_BITS - 1)
        if count > 0:
            p = slot >> P_SHIFT
            history = history_of(slot, count)
            histories[k, history] += (target - histories[k, history]) >> HISTORY_RATE
        p += (((bit << P_BITS) - bit - p) * core["rates"][count]) >> 16
        seen = ((slot >> HISTORY_SHIFT << 1) & ((1 << HISTORY_BITS) - 1)) | bit
        slots[k, position] = (
            (p << P_SHIFT) | (min(count + 1, COUNT_MAX) << COUNT_SHIFT) | (seen << HISTORY_SHIFT) | (slot & CHECK)
        )
    entry = (core["mixed"] + LIMIT + 1) >> MAP_STEP_BITS
    part = (core["mixed"] + LIMIT + 1) & ((1 << MAP_STEP_BITS) - 1)
    row = maps.maps[core["node"]]
    low, high = np.int64(row[entry]), np.int64(row[entry + 1])
    row[entry] = low + (((target - low) * ((1 << MAP_STEP_BITS) - part)) >> (MAP_STEP_BITS + MAP_RATE))
    row[entry + 1] = high + (((target - high) * part) >> (MAP_STEP_BITS + MAP_RATE))
