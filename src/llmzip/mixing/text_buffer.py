"""The text buffer: the bytes coded so far, as the frame's lanes fill them.

All lanes write into one array, each into its own range, and all may read what any of them has written.
The *frontier* of a lane is the first byte that it has not coded yet: nothing at or beyond a frontier is ever
read, so encoder and decoder see the same. Encoders therefore fill the array as they code, like decoders.

A model's dictionary is one more lane behind the others, complete before the frame begins: all lanes find repeats in it,
as if it had been coded (the dictionaries of zstd and zlib).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.jit import inlined, unowned
from llmzip.mixing.contexts import MASK32, MULTIPLIER_A, mixed_hash
from llmzip.mixing.layout import MATCHES, matches_for
from llmzip.mixing.match import MATCH_LEAST, MATCH_LONGEST, follow, give_up, search

TOKEN_BEGINS = 256  # added to a byte of the text where a token began
PADDING = 256  # a hostile frame may write a token, of at most 255 bytes, beyond the end before it is refused

# A lane. Positions are indices of `text`.
LANE = np.dtype(
    [
        ("start", np.int64),
        ("end", np.int64),
        ("at", np.int64),  # the frontier
        ("last4", np.int64),  # the last four bytes, the newest lowest
        ("older4", np.int64),  # the four before
        ("word", np.int64),  # hash of the letters since the last other byte
        ("word_before", np.int64),
        ("shape", np.int64),  # hash of about the last eight bytes, digits and letters all alike
        ("line", np.int64),  # where the current line begins
        ("line_before", np.int64),  # where the one before begins, -1 for none
        ("indent", np.int64),  # hash of the line's first bytes: blanks and what follows them
        ("indenting", np.int64),  # whether still among them
        ("cell", np.int64),  # separators of cells in the line so far
        ("marks", np.int64),  # the last three bytes that are neither letters, digits nor blanks, the newest lowest
        ("tag", np.int64),  # hash of what followed the last `<`
        ("naming", np.int64),  # whether it still goes on
        ("previous", np.int64, (3,)),  # the last tokens, the newest first, -1 before the lane's begin
        ("pointer", np.int64, (MATCHES,)),  # where the match goes on
        ("length", np.int64, (MATCHES,)),  # bytes agreed on, 0 after a wrong prediction
        ("missed", np.int64, (MATCHES,)),  # whether the last eight predictions were wrong, the newest lowest
        ("owner", np.int64, (MATCHES,)),  # lane that the pointer is in
        ("expected", np.int64, (MATCHES,)),  # byte predicted, + 256 if a token began with it; -1 for none
        ("fresh", np.int64),  # whether the contexts have been made since the last byte
    ],
    align=True,
)


class TextBuffer(NamedTuple):
    """The bytes of a frame and the tables that find them again.

    Attributes:
        text: uint16[n + PADDING], the bytes, + TOKEN_BEGINS where a token began.
        lanes: LANE[B + 1], the last for the dictionary; LANE[1] where there is no model.
        matches: int32[MATCHES * 2^k], the last position + 1 after each hash of bytes.
    """

    text: npt.NDArray[np.uint16]
    lanes: npt.NDArray[np.void]
    matches: npt.NDArray[np.int32]


def new_text_buffer(lane_bytes: list[int], matches: int = 0) -> TextBuffer:
    """Return an empty buffer for lanes of `lane_bytes` bytes; `matches` entries in its table, or what suits them."""
    size = sum(lane_bytes)
    lanes = np.zeros(len(lane_bytes), LANE)
    lanes["end"] = np.cumsum(lane_bytes)
    lanes["start"] = lanes["end"] - lane_bytes
    lanes["at"] = lanes["line"] = lanes["start"]
    lanes["line_before"] = lanes["previous"] = lanes["expected"] = lanes["pointer"] = -1
    lanes["indenting"] = 1
    return TextBuffer(
        np.zeros(size + PADDING, np.uint16),
        lanes,
        np.zeros(matches or MATCHES * matches_for(size), np.int32),
    )


def add_behind(known: TextBuffer, buffer: TextBuffer) -> None:
    """Copy a dictionary's buffer behind the lanes of another one, whose tables must have the same sizes."""
    start = int(buffer.lanes["start"][-1])
    buffer.text[start:-PADDING] = known.text[:-PADDING]
    np.add(known.matches, start, out=buffer.matches, where=known.matches > 0)
    buffer.lanes["at"][-1] = buffer.lanes["end"][-1]


@inlined
def borrowed(buffer):
    """Return the buffer with arrays without owners, for kernels."""
    return TextBuffer(unowned(buffer.text), unowned(buffer.lanes), unowned(buffer.matches))


@inlined
def is_letter(byte):
    """Return whether a byte is a letter of a word: ASCII letters and everything beyond ASCII."""
    return ((byte | 32) - 97 < 26 and (byte | 32) >= 97) or byte >= 128


@inlined
def append(lane, byte, mark, buffer):
    """Add a byte to the buffer of `lane`; `mark` is TOKEN_BEGINS if a token begins with it, else 0."""
    at = lane["at"]
    buffer.text[at] = byte | mark
    at += 1
    lane["at"] = at
    lane["fresh"] = 0
    lane["older4"] = ((lane["older4"] << 8) | (lane["last4"] >> 24)) & MASK32
    lane["last4"] = ((lane["last4"] << 8) | byte) & MASK32
    if is_letter(byte):
        folded = byte | 32 if byte < 128 else byte
        lane["word"] = mixed_hash(lane["word"], folded + 1)
        kind = 1 if byte < 128 else 2
    else:
        if lane["word"] != 0:
            lane["word_before"] = lane["word"]
            lane["word"] = 0
        kind = 3 if 48 <= byte < 58 else byte + 4
        if kind != 3 and byte != 32:
            lane["marks"] = ((lane["marks"] << 8) | byte) & 0xFFFFFF
    if byte == 9 or byte == 44 or byte == 58 or byte == 59 or byte == 124:  # TAB , : ; |
        lane["cell"] += 1
    if byte == 60:
        lane["tag"] = 0
        lane["naming"] = 1
    elif byte == 62 or byte == 32:
        lane["naming"] = 0
    elif lane["naming"] != 0:
        lane["tag"] = mixed_hash(lane["tag"], byte)
    lane["shape"] = ((lane["shape"] + kind) * MULTIPLIER_A << 4) & MASK32
    if byte == 10:
        lane["line_before"] = lane["line"]
        lane["line"] = at
        lane["indent"] = lane["cell"] = 0
        lane["indenting"] = 1
    elif lane["indenting"] != 0:
        lane["indent"] = mixed_hash(lane["indent"], byte)
        if byte != 32 and byte != 9:
            lane["indenting"] = 0
    for m in range(MATCHES):
        if lane["expected"][m] >= 0:
            lane["pointer"][m] += 1
            if lane["expected"][m] & 255 == byte:
                lane["length"][m] = min(lane["length"][m] + 1, MATCH_LONGEST)
                lane["missed"][m] = (lane["missed"][m] << 1) & 255
            else:
                lane["length"][m] = 0
                lane["missed"][m] = (lane["missed"][m] << 1 | 1) & 255
                if lane["missed"][m] == 255:
                    give_up(lane, m)
        search(lane, m, MATCH_LEAST[m], buffer)
        follow(lane, m, buffer)
