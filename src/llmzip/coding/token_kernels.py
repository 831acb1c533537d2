"""Encode and decode tokens: the loop in which tokens become bits and bits become tokens.

For each token the kernels get the running sums of the clusters' frequencies, and those of the tokens in the likeliest
cluster, and the likeliest token. They then descend the decision tree from its root: a decision at each
node above the cut, the sums of the cluster that was entered (if it is another one), and the decisions inside it. The
mixer refines the probability of each decision, and the range coder codes it. Without a language model the tokens are
single bytes, and the mixer predicts alone.

Lanes alternate, one token each, in ascending order within a time step; they share the adaptive state and the range
coder. One kernel serves both directions, so they cannot drift apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llmzip.coding.range_coder import bytes_at_most, decode_bit, encode_bit, overread
from llmzip.jit import inlined, jit, unowned
from llmzip.mixing import state, text_buffer
from llmzip.mixing.mixer import begin_token, learn, predict
from llmzip.mixing.state import Mixer
from llmzip.mixing.text_buffer import TOKEN_BEGINS, TextBuffer, append
from llmzip.mixing.trace import trace_decision
from llmzip.network.head import Work, borrowed_work
from llmzip.network.heads import AnyHead, borrowed_head, borrowed_prediction, cluster_sums, open_token
from llmzip.network.softmax import probability
from llmzip.vocabulary.tree import ABOVE, END, LEFT, MID, SPLIT, ClusteredTree, borrowed_tree, decision_of

# What the kernels return.
OK = 0
OVERFLOW = 1  # the payload might not fit into `out`
OVERREAD = 2  # the payload is too short for what it claims to hold
TOO_LONG = 3  # a token is longer than the rest of its lane

DECODE = -1  # in place of a token that is to be decoded


class TokenTables(NamedTuple):
    """What coding tokens needs of a model, the same for every frame."""

    head: AnyHead
    tree: ClusteredTree


class FrameState(NamedTuple):
    """What coding a frame with a language model changes."""

    buffer: TextBuffer
    mixer: Mixer
    work: Work


class ByteFrameState(NamedTuple):
    """What coding a frame without a language model changes."""

    buffer: TextBuffer
    mixer: Mixer


@inlined
def borrowed_tables(tables):
    """Return the tables with arrays without owners, for kernels."""
    return TokenTables(borrowed_head(tables.head), borrowed_tree(tables.tree))


@inlined
def borrowed_frame(frame):
    """Return the frame's state with arrays without owners, for kernels."""
    return FrameState(text_buffer.borrowed(frame.buffer), state.borrowed(frame.mixer), borrowed_work(frame.work))


@inlined
def borrowed_byte_frame(frame):
    """Return the frame's state with arrays without owners, for kernels."""
    return ByteFrameState(text_buffer.borrowed(frame.buffer), state.borrowed(frame.mixer))


@inlined
def append_token_bytes(token, known, size, lane, tree, buffer):
    """Append the bytes of `token` from number `known` to before `size` to the text buffer."""
    start = tree.offsets[token]
    for k in range(known, size):
        append(lane, np.int64(tree.blob[start + k]), TOKEN_BEGINS if k == 0 else 0, buffer)


@inlined
def code_decision(token, node, p1, known, lane, tree, frame, coder, data):
    """Code one decision, the bit of `token` or one from `data`; return the bit and the token's known bytes.

    Bytes that all tokens of a node share are added to the text buffer before its decision: the decoder knows them, too.
    """
    decision = decision_of(tree, node)
    mid = np.int64(tree.nodes[node, MID])
    append_token_bytes(mid, known, decision.depth, lane, tree, frame.buffer)
    mixer = frame.mixer
    p = predict(p1, node, decision, lane, frame.buffer, mixer)
    if token >= 0:
        bit = 1 if token >= mid else 0
        encode_bit(coder, data, p, bit)
    else:
        bit = decode_bit(coder, data, p)
    if mixer.core[0]["traced"] < len(mixer.trace):
        trace_decision(p1, p, bit, decision.bit == END, mixer)
    learn(bit, p1, node, mixer)
    return bit, decision.depth


@inlined
def finish_token(token, known, lane, tree, buffer):
    """Append the bytes of a token that are not known yet, and make it the lane's last token."""
    append_token_bytes(token, known, tree.offsets[token + 1] - tree.offsets[token], lane, tree, buffer)
    lane["previous"][2] = lane["previous"][1]
    lane["previous"][1] = lane["previous"][0]
    lane["previous"][0] = token


@jit
def append_tokens(tokens, lane, tree, buffer):
    """Append int32 tokens ``[n]`` to the text buffer as the whole content of one of its lanes."""
    tokens, tree, buffer = unowned(tokens), borrowed_tree(tree), text_buffer.borrowed(buffer)
    for i in range(len(tokens)):
        finish_token(np.int64(tokens[i]), np.int64(0), buffer.lanes[lane], tree, buffer)


@inlined
def code_token(token, lane, prediction, tables, frame, coder, data):
    """Encode `token` onto `data`, or decode one from it if `token` is DECODE; return the token.

    Args:
        token: the token or DECODE.
        lane: the record of its lane.
        prediction: the network's, of one row.
        tables, frame: borrowed TokenTables and FrameState.
        coder, data: the range coder's state, and the payload uint8.
    """
    tree, work = tables.tree, frame.work
    nodes, sums = tree.nodes, work.sums
    guess, entered, size = open_token(prediction, tables.head, tree, work)
    begin_token(guess, lane, frame.mixer)
    low, high, level = np.int64(0), sums[len(tree.starts) - 1], 1
    node, known = np.int64(0), np.int64(0)
    while node >= 0:
        if nodes[node, ABOVE] != level:
            level = 0
            cluster = np.int64(tree.cluster_of[nodes[node, MID]])
            if cluster != entered:
                size = cluster_sums(cluster, prediction, tables.head, tree, work)
            sums = work.inner
            low, high = np.int64(0), sums[size]
        middle = sums[nodes[node, SPLIT]]
        p1 = probability(low, middle, high)
        bit, known = code_decision(token, node, p1, known, lane, tree, frame, coder, data)
        if bit == 1:
            low = middle
        else:
            high = middle
        node = np.int64(nodes[node, LEFT + bit])
    finish_token(~node, known, lane, tree, frame.buffer)
    return ~node


@inlined
def code_byte(byte, lane, tree, frame, coder, data):
    """Encode `byte` or decode one, as :func:`code_token` does, in a tree of the 256 bytes and without a model."""
    begin_token(np.int64(-1), lane, frame.mixer)
    node = np.int64(0)
    while node >= 0:
        bit, _ = code_decision(byte, node, np.int64(0), np.int64(0), lane, tree, frame, coder, data)
        node = np.int64(tree.nodes[node, LEFT + bit])
    finish_token(~node, np.int64(0), lane, tree, frame.buffer)


@jit
def encode_steps(tokens, prediction, tables, frame, coder, out):
    """Encode a segment of time steps; return OK or OVERFLOW.

    Args:
        tokens: int32[T, B], -1 where a lane has ended.
        prediction: Prediction of the same rows.
        tables, frame: TokenTables and FrameState.
        coder: the range coder's state.
        out: uint8, the payload; nothing is written beyond it.
    """
    tables, frame = borrowed_tables(tables), borrowed_frame(frame)
    coder, out = unowned(coder), unowned(out)
    for step in range(tokens.shape[0]):
        for lane in range(tokens.shape[1]):
            token = np.int64(tokens[step, lane])
            if token < 0:
                continue
            if bytes_at_most(coder, tables.tree.height) > len(out):
                return OVERFLOW
            row = borrowed_prediction(prediction, step, lane)
            code_token(token, frame.buffer.lanes[lane], row, tables, frame, coder, out)
    return OK


@jit
def decode_step(first, prediction, tables, frame, coder, payload, tokens):
    """Decode one token for each unfinished lane of a group of neighbours.

    Safe for any payload: a token is one of the vocabulary, at least one byte long, and stays inside its lane.

    Args:
        first: the first lane of the group.
        prediction: Prediction of one step, with a row for each lane of the group.
        tables, frame, coder: as for :func:`encode_steps`.
        payload: uint8.
        tokens: int32[B] of all lanes, written for the lanes that took part.

    Returns:
        OK, OVERREAD or TOO_LONG; after the latter two nothing of the frame may be used.
    """
    tables, frame = borrowed_tables(tables), borrowed_frame(frame)
    coder, payload = unowned(coder), unowned(payload)
    for row in range(prediction[0].shape[1]):
        lane = frame.buffer.lanes[first + row]
        if lane["at"] >= lane["end"]:
            continue
        ahead = borrowed_prediction(prediction, 0, row)
        token = code_token(np.int64(DECODE), lane, ahead, tables, frame, coder, payload)
        if overread(coder, payload):
            return OVERREAD
        if lane["at"] > lane["end"]:
            return TOO_LONG
        tokens[first + row] = token
    return OK


@jit
def encode_bytes(content, tree, frame, coder, out):
    """Encode `content` uint8, the next bytes of the frame's only lane, without a language model.

    Return OK or OVERFLOW; nothing is written beyond `out` uint8.
    """
    tree, frame = borrowed_tree(tree), borrowed_byte_frame(frame)
    content, coder, out, lane = unowned(content), unowned(coder), unowned(out), frame.buffer.lanes[0]
    for i in range(len(content)):
        if bytes_at_most(coder, tree.height) > len(out):
            return OVERFLOW
        code_byte(np.int64(content[i]), lane, tree, frame, coder, out)
    return OK


@jit
def decode_bytes(size, tree, frame, coder, payload):
    """Decode `size` bytes of the frame's only lane from `payload` uint8; return OK or OVERREAD."""
    tree, frame = borrowed_tree(tree), borrowed_byte_frame(frame)
    coder, payload, lane = unowned(coder), unowned(payload), frame.buffer.lanes[0]
    for _ in range(size):
        code_byte(np.int64(DECODE), lane, tree, frame, coder, payload)
        if overread(coder, payload):
            return OVERREAD
    return OK
