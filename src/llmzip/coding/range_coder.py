"""The binary arithmetic coder: bits with 16-bit probabilities to bytes and back.

A range coder with carry (Martin 1979, Schindler 1998; this variant is LZMA's). The state is an
interval [low, low + range) of the 32-bit fractions; each bit keeps the part of it that is its
probability's share, bit 1 the lower part. Bytes leave at the top as soon as they are settled:

* 2^24 <= range <= 2^32 before each bit, so both parts of the interval hold at least 2^8 values and
  a bit costs at most two bytes;
* low < 2^32 after each shift, and low + range never exceeds the 2^32 of the whole, carry included;
* a byte that a carry may still change is kept back, with the number of FF bytes that follow it.

The end writes the one byte that is still needed: of the values in the last interval the one whose
low 24 bits are zero. The decoder takes those three zero bytes as read, and nothing more: at the end
of a sound payload it has used exactly the payload and three bytes.

State is one int64 array for either side, at the indices below. All arithmetic is on int64 values
that are not negative, so the compiled and the interpreted kernels cannot differ.
"""

from __future__ import annotations

from math import log2

import numpy as np
import numpy.typing as npt

from llmzip.jit import inlined, jit

WHOLE = 1 << 32
TOP = 1 << 24  # the smallest range before a bit
MASK32 = WHOLE - 1
PROBABILITY_BITS = 16
IMPLICIT_ZEROS = 3  # bytes that the decoder reads beyond the payload

# Both sides: the width of the interval, and the next position in the payload.
RANGE, POSITION = 0, 1
# Encoder: low end of the interval; the byte kept back (-1: the first one, which is always 0 and is
# not written) and the number of FF bytes kept back after it.
LOW, KEPT, KEPT_FF = 2, 3, 4
# Decoder: the payload's value, as an offset from the interval's low end.
CODE = 2
STATE_SIZE = 5

CHEAPEST_BIT = 0.99 * log2(65536 / 65535)  # bits that a decision costs at least, rounding included

TOO_SHORT = "the frame's data ends too early"  # what is wrong with a payload
TOO_MUCH = "the frame claims more content than its data can hold"
NOT_USED_UP = "the frame's data does not end where it should"


def new_encoder() -> npt.NDArray[np.int64]:
    """Return the state of an encoder before the first bit."""
    state = np.zeros(STATE_SIZE, np.int64)
    state[RANGE] = WHOLE
    state[KEPT] = -1
    return state


def new_decoder(payload: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return the state of a decoder that has read the first four bytes of `payload` uint8."""
    state = np.zeros(STATE_SIZE, np.int64)
    state[RANGE] = WHOLE
    for _ in range(4):
        read_byte(state, payload)
    return state


@inlined
def shift_low(state, out):
    """Move the interval's top byte to `out`, or keep it back while a carry may still change it."""
    low = state[LOW]
    carry = low >> 32
    if carry == 1 or low < 0xFF000000:
        position = state[POSITION]
        if state[KEPT] >= 0:
            out[position] = (state[KEPT] + carry) & 0xFF
            position += 1
        for _ in range(state[KEPT_FF]):
            out[position] = (0xFF + carry) & 0xFF
            position += 1
        state[POSITION] = position
        state[KEPT_FF] = 0
        state[KEPT] = (low >> 24) & 0xFF
    else:
        state[KEPT_FF] += 1
    state[LOW] = (low & 0x00FFFFFF) << 8


@inlined
def encode_bit(state, out, p1, bit):
    """Code `bit` with P(bit = 1) = `p1` / 2^16, 1 <= p1 <= 65535, onto `out` uint8."""
    bound = (state[RANGE] * p1) >> 16
    if bit == 1:
        state[RANGE] = bound
    else:
        state[LOW] += bound
        state[RANGE] -= bound
    while state[RANGE] < TOP:
        state[RANGE] <<= 8
        shift_low(state, out)


@inlined
def bytes_at_most(state, bits):
    """Return an upper bound of the payload's size once `bits` more bits are coded and it is ended."""
    return state[POSITION] + state[KEPT_FF] + 2 * bits + 3


def bits_written(state: npt.NDArray[np.int64]) -> float:
    """Return the cost in bits of an encoder's interval so far, fractions included."""
    shifts = int(state[POSITION] + state[KEPT_FF]) + int(state[KEPT] >= 0)
    return 8 * shifts + 32 - log2(state[RANGE])


def most_decisions(payload_size: int) -> int:
    """Return an upper bound of the number of decisions that a payload of `payload_size` bytes can hold."""
    return int(8 * (payload_size + 8) / CHEAPEST_BIT)


@jit
def finish(state, out):
    """End the payload and return its size in bytes."""
    state[LOW] = (state[LOW] + TOP - 1) & ~(TOP - 1)
    shift_low(state, out)  # the byte kept back and the needed byte; low is now 0
    shift_low(state, out)
    return state[POSITION]


@inlined
def read_byte(state, payload):
    """Shift the next byte of `payload`, zero beyond its end, into the decoder."""
    position = state[POSITION]
    byte = np.int64(payload[position]) if position < len(payload) else 0
    state[CODE] = ((state[CODE] << 8) & MASK32) | byte
    state[POSITION] = position + 1


@inlined
def decode_bit(state, payload, p1):
    """Return the next bit, whose P(bit = 1) = `p1` / 2^16; never fails, see :func:`overread`."""
    bound = (state[RANGE] * p1) >> 16
    if state[CODE] < bound:
        state[RANGE] = bound
        bit = 1
    else:
        state[CODE] -= bound
        state[RANGE] -= bound
        bit = 0
    while state[RANGE] < TOP:
        state[RANGE] <<= 8
        read_byte(state, payload)
    return bit


@inlined
def overread(state, payload):
    """Return whether the decoder has used more bytes than any encoder would have left it."""
    return state[POSITION] > len(payload) + IMPLICIT_ZEROS


@jit
def used_up(state, payload):
    """Return whether the decoder has used exactly the payload: true at the end of every sound one."""
    return state[POSITION] == len(payload) + IMPLICIT_ZEROS
