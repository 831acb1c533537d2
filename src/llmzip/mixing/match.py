"""Match models: they find where the same bytes occurred last, and predict what followed there."""

from __future__ import annotations

import numpy as np

from llmzip.jit import inlined
from llmzip.mixing.contexts import MASK32, MULTIPLIER_A
from llmzip.mixing.layout import MATCHES

MATCH_STATES = 1024  # what a match model's success depends on; see `state_of_match`
MATCH_LEAST = (12, 5)  # bytes that must agree for each match model
MATCH_LONGEST = 65535
MATCH_VERIFIED = 48  # bytes compared at most when a match is found
MISSES_FORGIVEN = 8  # wrong predictions in a row after which a match is given up


@inlined
def owner_of(position, lanes):
    """Return the lane whose range holds `position`."""
    low, high = 0, len(lanes) - 1
    while low < high:
        middle = (low + high + 1) >> 1
        if lanes[middle]["start"] <= position:
            low = middle
        else:
            high = middle - 1
    return low


@inlined
def give_up(lane, m):
    """Make match model `m` of `lane` follow nothing; any match that it finds is longer."""
    lane["pointer"][m] = -1
    lane["length"][m] = 0


@inlined
def follow(lane, m, buffer):
    """Set what match model `m` of `lane` expects next."""
    lane["expected"][m] = -1
    pointer = lane["pointer"][m]
    if pointer < 0:
        return
    owner = lane["owner"][m]
    lanes = buffer.lanes
    while pointer >= lanes[owner]["end"]:  # the text goes on in the next lane, which may be empty
        owner += 1
        if owner == len(lanes):
            give_up(lane, m)
            return
    lane["owner"][m] = owner
    if pointer >= lanes[owner]["at"]:
        give_up(lane, m)  # a frontier
        return
    lane["expected"][m] = buffer.text[pointer]


@inlined
def search(lane, m, least, buffer):
    """Search for a longer repeat for match model `m` of `lane`, of `least` bytes or more."""
    at, start = lane["at"], lane["start"]
    text, lanes, matches = buffer.text, buffer.lanes, buffer.matches
    if at - start < least:
        return
    value = np.int64(0)
    for k in range(1, least + 1):
        value = (value * MULTIPLIER_A + np.int64(text[at - k] & 255) + 1) & MASK32
        value ^= value >> 15
    size = len(matches) // MATCHES
    place = (value & (size - 1)) + m * size
    candidate = np.int64(matches[place]) - 1
    matches[place] = np.int32(at + 1)
    if candidate < 0 or lane["length"][m] >= MATCH_VERIFIED:
        return
    owner = owner_of(candidate - 1, lanes)
    longest = min(min(candidate - lanes[owner]["start"], at - start), MATCH_VERIFIED)
    length = 0
    while length < longest and (text[candidate - 1 - length] ^ text[at - 1 - length]) & 255 == 0:
        length += 1
    if length >= least and length > lane["length"][m]:
        lane["pointer"][m] = candidate
        lane["owner"][m] = owner
        lane["length"][m] = length
        lane["missed"][m] = 0


@inlined
def state_of_match(lane, m, ending, guess):
    """Return a number below MATCH_STATES for what is known of match model `m`, and one of 0 .. 6 for its length.

    `ending` is whether the decision is about the end of a token, `guess` the bit that the model predicts then.
    """
    length, missed = lane["length"][m], lane["missed"][m]
    bucket = min(24 + ((length - 80) >> 6), 31)
    if length < 16:
        bucket = length
    elif length < 80:
        bucket = 16 + ((length - 16) >> 3)
    state = bucket * 8 + (missed & 1) * 4 + (2 if missed & 0xFE else 0)
    if ending:
        state += 512 + guess
    return state, min(bucket >> 1, 6)
