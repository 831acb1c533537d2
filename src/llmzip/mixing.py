"""The adaptive stage: what the text itself has taught about a decision, mixed with the model's view.

Each decision of a walk is looked up in four contexts: its node alone, and the node together with
one, two and three previous tokens of the lane. A context remembers, in one *slot*, an adaptive
probability of bit 1 and the last few bits seen; the latter, a history such as "1, 1, 1", has an
adaptive probability of its own, shared by all slots with that history. These eight opinions and the
model's are added up in the logistic domain, with weights that are learned online and selected by
how much the contexts know (logistic mixing: Mahoney 2005, the PAQ family). At the end a map per
node corrects what it has been wrong about ("adaptive probability map", "SSE").

Everything is an integer. Probabilities of bit 1 have 16 bits, *stretched* ones are log2(p / (1 - p))
in units of 2^-8. All lanes share the state and pass through it in the order of coding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.distribution import exp2_table
from llmzip.jit import jit

LIMIT = 4095  # the largest stretched probability

# A slot, 32 bits: probability 15, count 4, history 5, check 8. The history holds min(count, 5)
# bits, the newest lowest. A count of 0 means that the slot knows nothing.
COUNT_LIMIT = 15
HISTORY_BITS = 5
PROBABILITY_SHIFT, COUNT_SHIFT, HISTORY_SHIFT = 17, 13, 8
CHECK_MASK = 255

CONTEXTS = 4
INPUTS = 1 + 2 * CONTEXTS
SETS = 64  # of weights: 4 levels of confidence in each context but the first
ONE = 1 << 16  # the weight 1
WEIGHT_LIMIT = 8 * ONE
LEARNING_SHIFT = 18

BUCKETS = 33  # of a node's final map, at stretched probabilities 256 apart
MAP_BITS = 22
MAP_RATE = 5  # shift
HISTORY_RATE = 7

MASK32 = 0xFFFFFFFF
MULTIPLIER_A, MULTIPLIER_B = 0x2C1B3C6D, 0x297A2D39  # odd, below 2^30: products stay in int64


class Maps(NamedTuple):
    """Hold the adaptive state of a frame, its tables and what passes from refine to learn."""

    stretch: npt.NDArray[np.int16]  # [65536] by 16-bit probability
    squash: npt.NDArray[np.int32]  # [2 * LIMIT + 1] by stretched probability + LIMIT
    rates: npt.NDArray[np.int64]  # [COUNT_LIMIT + 1] by count, in 2^-16
    nodes: npt.NDArray[np.uint32]  # [V - 1] slots by node
    slots: npt.NDArray[np.uint32]  # [CONTEXTS - 1, a power of two] slots by hash
    histories: npt.NDArray[np.int64]  # [CONTEXTS, 2^(HISTORY_BITS + 1)] MAP_BITS each
    weights: npt.NDArray[np.int64]  # [SETS, INPUTS]
    final: npt.NDArray[np.int32]  # [V - 1, BUCKETS], MAP_BITS each
    hashes: npt.NDArray[np.int64]  # [CONTEXTS - 1] of the previous tokens
    places: npt.NDArray[np.int64]  # [CONTEXTS] positions of the slots
    inputs: npt.NDArray[np.int64]  # [INPUTS]
    last: npt.NDArray[np.int64]  # set of weights, mixed probability, node, stretched mix


def squash_table() -> npt.NDArray[np.int32]:
    """Return int32[2 * LIMIT + 1]: 2^16 / (1 + 2^(-x / 256)) for x = -LIMIT .. LIMIT, within 1 .. 65535."""
    exp2 = exp2_table().astype(np.int64)
    x = np.arange(LIMIT + 1)
    # 2^(-x / 256) with 24 bits; x / 256 has 4 bits fewer than the table's logits.
    power = exp2[(x << 4) & 4095] >> (x >> 8)
    upper = (((1 << 41) // ((1 << 24) + power)) + 1) >> 1
    upper = np.clip(upper, 1, 65535)
    return np.concatenate([65536 - upper[:0:-1], upper]).astype(np.int32)


def stretch_table() -> npt.NDArray[np.int16]:
    """Return int16[65536], the inverse: for p the smallest x with squash(x) >= p, at most LIMIT."""
    x = np.searchsorted(squash_table(), np.arange(65536)) - LIMIT
    return np.clip(x, -LIMIT, LIMIT).astype(np.int16)


def history_table() -> npt.NDArray[np.int64]:
    """Return int64[2^(HISTORY_BITS + 1)]: first probabilities of 1 after a history, MAP_BITS.

    The index is a 1 and the bits of the history. Bits count 5 each, 4/5 as much for each later bit,
    over a start of 2 for either value.
    """
    table = np.zeros(2 << HISTORY_BITS, np.int64)
    for index in range(1, len(table)):
        seen = [2 * 5**HISTORY_BITS, 2 * 5**HISTORY_BITS]
        for age, bit in enumerate(reversed(bin(index)[3:])):
            seen[int(bit)] += 5 * 4**age * 5 ** (HISTORY_BITS - age)
        table[index] = (seen[1] << MAP_BITS) // sum(seen)
    return table


def new_maps(nodes: int, tokens: int) -> Maps:
    """Return the state before the first of about `tokens` tokens, for a tree of `nodes` nodes."""
    bits = min(max(16, (16 * tokens).bit_length()), 22)
    squash = squash_table()
    grid = np.clip(np.arange(BUCKETS) * 256 - 4096, -LIMIT, LIMIT)
    identity = squash[grid + LIMIT] << (MAP_BITS - 16)
    weights = np.zeros((SETS, INPUTS), np.int64)
    weights[:, 0] = ONE * 3 // 8
    weights[:, 1:] = ONE // 8
    return Maps(
        stretch=stretch_table(),
        squash=squash,
        rates=np.array([(2 << 16) // (2 * n + 3) for n in range(COUNT_LIMIT + 1)], np.int64),
        nodes=np.zeros(nodes, np.uint32),
        slots=np.zeros((CONTEXTS - 1, 1 << bits), np.uint32),
        histories=np.repeat(history_table()[None], CONTEXTS, axis=0),
        weights=weights,
        final=np.repeat(identity.astype(np.int32)[None], nodes, axis=0),
        hashes=np.zeros(CONTEXTS - 1, np.int64),
        places=np.zeros(CONTEXTS, np.int64),
        inputs=np.zeros(INPUTS, np.int64),
        last=np.zeros(4, np.int64),
    )


@jit
def enter(previous, maps):
    """Prepare for a token: `previous` int32[3] are the lane's last ones, the newest first."""
    value = 0
    for k in range(CONTEXTS - 1):
        value = (value + np.int64(previous[k]) + 2) * MULTIPLIER_A & MASK32
        value ^= value >> 15
        maps.hashes[k] = value


@jit
def refine(p1, node, maps):
    """Return the final probability of bit 1, 1 .. 65535, where the model says `p1`."""
    inputs = maps.inputs
    inputs[0] = maps.stretch[p1]
    chosen = 0
    size = maps.slots.shape[1]
    for k in range(CONTEXTS):
        if k == 0:
            place = np.int64(node)
            slot = np.int64(maps.nodes[place])
        else:
            value = (maps.hashes[k - 1] + node * MULTIPLIER_B & MASK32) * MULTIPLIER_A & MASK32
            value ^= value >> 15
            place = value >> 8 & size - 1
            slot = np.int64(maps.slots[k - 1, place])
            check = value & CHECK_MASK
            if slot & CHECK_MASK != check:
                # Another context's: start afresh in its place.
                slot = check
                maps.slots[k - 1, place] = slot
        maps.places[k] = place
        count = slot >> COUNT_SHIFT & COUNT_LIMIT
        if count == 0:
            inputs[2 * k + 1] = 0
            inputs[2 * k + 2] = 0
            confidence = 0
        else:
            inputs[2 * k + 1] = maps.stretch[slot >> PROBABILITY_SHIFT << 1 | 1]
            seen = min(count, HISTORY_BITS)
            history = 1 << seen | slot >> HISTORY_SHIFT & (1 << seen) - 1
            inputs[2 * k + 2] = maps.stretch[maps.histories[k, history] >> MAP_BITS - 16]
            confidence = 1 if count < 2 else (2 if count < 5 else 3)
        if k > 0:
            chosen = chosen << 2 | confidence
    total = 0
    for i in range(INPUTS):
        total += maps.weights[chosen, i] * inputs[i]
    mix = min(max(total >> 16, -LIMIT), LIMIT)
    mixed = np.int64(maps.squash[mix + LIMIT])
    bucket, part = mix + 4096 >> 8, mix + 4096 & 255
    low, high = np.int64(maps.final[node, bucket]), np.int64(maps.final[node, bucket + 1])
    corrected = low * (256 - part) + high * part >> MAP_BITS - 16 + 8
    maps.last[0], maps.last[1], maps.last[2], maps.last[3] = chosen, mixed, node, mix
    return min(max(mixed + corrected >> 1, 1), 65535)


@jit
def updated(slot, bit, rates):
    """Return a slot after `bit`."""
    count = slot >> COUNT_SHIFT & COUNT_LIMIT
    p = slot >> PROBABILITY_SHIFT if count > 0 else 1 << 14
    p += ((bit << 15) - bit - p) * rates[count] >> 16
    history = slot >> HISTORY_SHIFT << 1 & (1 << HISTORY_BITS) - 1 | bit
    count = min(count + 1, COUNT_LIMIT)
    return (
        p << PROBABILITY_SHIFT
        | count << COUNT_SHIFT
        | history << HISTORY_SHIFT
        | slot & CHECK_MASK
    )


@jit
def learn(bit, maps):
    """Adapt everything that the last call of refine has used to the `bit` that came."""
    chosen, mixed, node, mix = maps.last[0], maps.last[1], maps.last[2], maps.last[3]
    error = (bit << 16) - mixed
    for i in range(INPUTS):
        change = maps.inputs[i] * error + (1 << LEARNING_SHIFT - 1) >> LEARNING_SHIFT
        weight = maps.weights[chosen, i] + change
        maps.weights[chosen, i] = min(max(weight, -WEIGHT_LIMIT), WEIGHT_LIMIT)
    for k in range(CONTEXTS):
        place = maps.places[k]
        slot = np.int64(maps.nodes[place] if k == 0 else maps.slots[k - 1, place])
        count = slot >> COUNT_SHIFT & COUNT_LIMIT
        if count > 0:
            seen = min(count, HISTORY_BITS)
            history = 1 << seen | slot >> HISTORY_SHIFT & (1 << seen) - 1
            p = maps.histories[k, history]
            maps.histories[k, history] = p + ((bit << MAP_BITS) - bit - p >> HISTORY_RATE)
        slot = updated(slot, bit, maps.rates)
        if k == 0:
            maps.nodes[place] = slot
        else:
            maps.slots[k - 1, place] = slot
    bucket, part = mix + 4096 >> 8, mix + 4096 & 255
    target = (bit << MAP_BITS) - bit
    p = np.int64(maps.final[node, bucket])
    maps.final[node, bucket] = p + ((target - p) * (256 - part) >> 8 + MAP_RATE)
    p = np.int64(maps.final[node, bucket + 1])
    maps.final[node, bucket + 1] = p + ((target - p) * part >> 8 + MAP_RATE)
