"""Code many short texts at a time: the loop of :mod:`llmzip.coding.token_kernels`, a coder and a state for each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llmzip.coding.range_coder import bytes_at_most, overread
from llmzip.coding.token_kernels import (
    DECODE,
    OK,
    OVERFLOW,
    OVERREAD,
    TOO_LONG,
    FrameState,
    borrowed_tables,
    code_token,
)
from llmzip.jit import inlined, jit, unowned
from llmzip.mixing import state
from llmzip.mixing.state import Mixer
from llmzip.mixing.text_buffer import TextBuffer
from llmzip.network.head import borrowed_work
from llmzip.network.heads import borrowed_prediction


class Texts(NamedTuple):
    """What each of B texts has of its own while it is coded.

    Attributes:
        text: uint16[B, n], the bytes, then the dictionary.
        lanes: LANE[B, 2], the text's lane and the dictionary's.
        matches: int32[B, m].
        slots: uint8[B, s].
        slot_bytes: int64[B], those of the slots in use.
        coders: int64[B, STATE_SIZE], the range coders.
        status: int64[B], OK or what ended it.
    """

    text: np.ndarray
    lanes: np.ndarray
    matches: np.ndarray
    slots: np.ndarray
    slot_bytes: np.ndarray
    coders: np.ndarray
    status: np.ndarray


@inlined
def frame_of(i, texts, mixer, work):
    """Return text `i` as a borrowed frame; the mixer's tables are shared."""
    slots = unowned(texts.slots[i])
    return FrameState(
        TextBuffer(unowned(texts.text[i]), unowned(texts.lanes[i]), unowned(texts.matches[i])),
        Mixer(mixer.core, unowned(slots[: texts.slot_bytes[i]]), mixer.weights, mixer.inputs, mixer.apms, mixer.trace),
        work,
    )


@jit
def encode_texts(tokens, prediction, tables, texts, mixer, work, out):
    """Encode a segment of time steps of B texts.

    Args:
        tokens: int32[T, B], -1 where a text has ended.
        prediction: Prediction of the same rows.
        tables, texts, mixer, work: TokenTables, Texts, a frozen Mixer, Work.
        out: uint8[B, n], the payloads.
    """
    tables, mixer, work = borrowed_tables(tables), state.borrowed(mixer), borrowed_work(work)
    for i in range(tokens.shape[1]):
        frame, coder, payload = frame_of(i, texts, mixer, work), unowned(texts.coders[i]), unowned(out[i])
        for step in range(tokens.shape[0]):
            token = np.int64(tokens[step, i])
            if token < 0 or texts.status[i] != OK:
                break
            if bytes_at_most(coder, tables.tree.height) > len(payload):
                texts.status[i] = OVERFLOW
                break
            row = borrowed_prediction(prediction, step, i)
            code_token(token, frame.buffer.lanes[0], row, tables, frame, coder, payload)


@jit
def decode_texts(prediction, tables, texts, mixer, work, payloads, starts, tokens):
    """Decode one token of each text that is not complete.

    Args:
        prediction: Prediction of one step.
        tables, texts, mixer, work: as for :func:`encode_texts`.
        payloads: uint8, one after the other; text i has those from starts[i] to before starts[i + 1].
        starts: int64[B + 1].
        tokens: int32[B], written where a token was decoded.

    Returns:
        the number of texts that are not complete.
    """
    tables, mixer, work = borrowed_tables(tables), state.borrowed(mixer), borrowed_work(work)
    waiting = 0
    for i in range(len(tokens)):
        frame, coder = frame_of(i, texts, mixer, work), unowned(texts.coders[i])
        payload = unowned(payloads[starts[i] : starts[i + 1]])
        lane = frame.buffer.lanes[0]
        if lane["at"] >= lane["end"] or texts.status[i] != OK:
            continue
        token = code_token(np.int64(DECODE), lane, borrowed_prediction(prediction, 0, i), tables, frame, coder, payload)
        if overread(coder, payload):
            texts.status[i] = OVERREAD
        elif lane["at"] > lane["end"]:
            texts.status[i] = TOO_LONG
        else:
            tokens[i] = token
            waiting += 1 if lane["at"] < lane["end"] else 0
    return waiting
