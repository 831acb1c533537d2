"""Bit histories: what a context remembers of a decision, in one byte, and the probability that follows from it.

A *bit history* stands for the bits that came in a context: the exact bits of the first four, from then on
the numbers of zeros and ones, with the older evidence fading, and which came last. Histories are numbered
by the amount of evidence, 0 for none. What usually follows a history is learned while coding: an *adaptive
probability* for each history of each context (PAQ's indirect modelling, Mahoney 2005).

Probabilities have 16 bits and are those of bit 1. A *stretched* one is log2(p / (1 - p)) in units of 2^-8.
All tables come from integer formulas.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmzip.jit import inlined

EXACT_BITS = 4  # histories up to this length are kept bit by bit
MAJORITY_LIMITS = (41, 24, 12, 8)  # of the more frequent bit's count, by the count of the other
STATES = 256

# An adaptive probability is a uint32: probability 22, count 10 (lowest).
COUNT_BITS = 10
COUNT_MASK = (1 << COUNT_BITS) - 1
RATE_LIMIT = 1023


def _fade(count: int) -> int:
    """Return what is left of the evidence for one bit once the other has come."""
    return count if count <= 2 else min(count // 2 + 1, 6)


def _bounded(zeros: int, ones: int) -> tuple[int, int]:
    """Return the nearest counts that have a number."""
    few, many = sorted((zeros, ones))
    if few >= len(MAJORITY_LIMITS):
        many, few = (many * (len(MAJORITY_LIMITS) - 1) + few // 2) // few, len(MAJORITY_LIMITS) - 1
    many = min(max(many, few), MAJORITY_LIMITS[few])
    return (few, many) if zeros < ones else (many, few)


def _following(history: str | tuple[int, int, int], bit: int) -> str | tuple[int, int, int]:
    if isinstance(history, str):
        if len(history) < EXACT_BITS:
            return history + str(bit)
        zeros, ones = history.count("0"), history.count("1")
    else:
        zeros, ones, _ = history
    zeros, ones = (_fade(zeros), ones + 1) if bit else (zeros + 1, _fade(ones))
    return (*_bounded(zeros, ones), bit)


def _counts(history: str | tuple[int, int, int]) -> tuple[int, int]:
    return (history.count("0"), history.count("1")) if isinstance(history, str) else history[:2]


def _histories() -> list[str | tuple[int, int, int]]:
    """Return all bit histories in the order of their numbers."""
    found: dict[str | tuple[int, int, int], None] = {"": None}
    waiting: list[str | tuple[int, int, int]] = [""]
    while waiting:
        history = waiting.pop(0)
        for bit in (0, 1):
            new = _following(history, bit)
            if new not in found:
                found[new] = None
                waiting.append(new)
    return sorted(found, key=lambda h: (sum(_counts(h)), isinstance(h, tuple)))


def history_tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """Return the successors uint8[256, 2] of every history and what is first thought to follow it, uint32[256].

    The latter is an adaptive probability without evidence of its own.
    """
    histories = _histories()
    number = {history: i for i, history in enumerate(histories)}
    successors = np.zeros((STATES, 2), np.uint8)
    first = np.full(STATES, 1 << 31, np.uint32)
    for history, i in number.items():
        successors[i] = [number[_following(history, bit)] for bit in (0, 1)]
        zeros, ones = _counts(history)
        first[i] = ((5 * ones + 2 << 22) // (5 * (zeros + ones) + 4)) << COUNT_BITS
    return successors, first


def learning_rate_table() -> npt.NDArray[np.int32]:
    """Return int32[1024]: 2^16 / (n + 3/2), the weight of new evidence after n times."""
    return ((2 << 16) // (2 * np.arange(RATE_LIMIT + 1) + 3)).astype(np.int32)


@inlined
def adapted(entry, bit, rates, limit):
    """Return the adaptive probability `entry` (int64) after `bit`; its memory is `limit` times at most."""
    count = entry & COUNT_MASK
    p = entry >> COUNT_BITS
    p += (((bit << 22) - bit - p) * rates[count]) >> 16
    return (p << COUNT_BITS) | (count + 1 if count < limit else count)
