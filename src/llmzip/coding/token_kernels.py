"""The walk down the decision tree: the loop in which tokens become bits and bits become tokens.

For each token: the sums of the clusters' frequencies, and of those of the likeliest cluster's tokens, which tell the
likeliest token; a decision at each node above the cut; then the sums of the cluster that was entered, if it is
another, and the decisions inside. The probability of each decision goes through the mixer to the arithmetic coder.
Without a language model the tokens are bytes, and the mixer is on its own.

Lanes take turns, one token each, in ascending order within a time step; they share the adaptive
state and the coder. One kernel walks for both directions, so they cannot drift apart.
"""

from __future__ import annotations

import numpy as np

from llmzip.coding.range_coder import bytes_at_most, decode_bit, encode_bit, overread
from llmzip.jit import inlined, jit, unowned
from llmzip.mixing import state, text_buffer
from llmzip.mixing.mixer import begin_token, learn, predict
from llmzip.mixing.text_buffer import TOKEN_BEGINS, append
from llmzip.mixing.trace import trace_decision
from llmzip.network.head import borrowed_head, borrowed_work, cluster_sums, most_frequent
from llmzip.network.softmax import probability, running_sums
from llmzip.vocabulary.tree import (
    ABOVE,
    BIT,
    DEPTH,
    END,
    LEFT,
    MID,
    NODE_INDEX,
    PARTIAL,
    SPLIT,
    borrowed_tree,
)

# What the kernels return.
OK = 0
OVERFLOW = 1  # the payload might not fit into `out`
OVERREAD = 2  # the payload is too short for what it claims to hold
TOO_LONG = 3  # a token is longer than what is left of its lane

DECODE = -1  # in place of a token: it is to be decoded


@inlined
def append_token_bytes(token, known, size, lane, tree, buffer):
    """Add the bytes of `token` from the `known` one to before the one at `size` to the lane's buffer."""
    start = tree.offsets[token]
    for k in range(known, size):
        append(lane, np.int64(tree.blob[start + k]), TOKEN_BEGINS if k == 0 else 0, buffer)


@inlined
def code_decision(token, node, p1, known, lane, tree, buffer, mixer, coder, data):
    """Code one decision, the bit of `token` or one from `data`; return the bit and how many bytes of it are known.

    Bytes that all tokens of a node share are in the buffer before its decision: the decoder knows them, too.
    """
    nodes = tree.nodes
    mid, depth = np.int64(nodes[node, MID]), np.int64(nodes[node, DEPTH])
    append_token_bytes(mid, known, depth, lane, tree, buffer)
    node_index, bit, partial = (
        np.int64(nodes[node, NODE_INDEX]),
        np.int64(nodes[node, BIT]),
        np.int64(nodes[node, PARTIAL]),
    )
    p = predict(p1, node, node_index, depth, bit, partial, lane, buffer, mixer)
    if token >= 0:
        came = 1 if token >= mid else 0
        encode_bit(coder, data, p, came)
    else:
        came = decode_bit(coder, data, p)
    if mixer.core[0]["traced"] < len(mixer.trace):
        trace_decision(p1, p, came, bit == END, mixer)
    learn(came, p1, node, mixer)
    return came, depth


@inlined
def finish_token(token, known, lane, tree, buffer):
    """Add what is not known yet of a token to the buffer."""
    append_token_bytes(token, known, tree.offsets[token + 1] - tree.offsets[token], lane, tree, buffer)
    lane["previous"][2] = lane["previous"][1]
    lane["previous"][1] = lane["previous"][0]
    lane["previous"][0] = token


@jit
def append_tokens(tokens, lane, tree, buffer):
    """Add a text, int32 tokens ``[n]``, to the buffer as the whole stretch of one of its lanes."""
    tokens, tree, buffer = unowned(tokens), borrowed_tree(tree), text_buffer.borrowed(buffer)
    for i in range(len(tokens)):
        finish_token(np.int64(tokens[i]), np.int64(0), buffer.lanes[lane], tree, buffer)


@inlined
def code_token(token, lane, acc1, q, scale, head, tree, work, buffer, mixer, coder, data):
    """Encode `token` onto `data`, or decode one from it if `token` is DECODE; return the token.

    Args:
        token: the token or DECODE.
        lane: its lane's record.
        acc1: int32[C], the products for the clusters.
        q, scale: int16[d] and float32, the row that they were made from.
        head, tree, work, buffer, mixer: borrowed.
        coder, data: the coder's state, and the payload uint8.
    """
    nodes, sums = tree.nodes, work.sums
    clusters = len(tree.starts) - 1
    for i in range(clusters):
        work.acc[i] = acc1[i]
    running_sums(work.acc[:clusters], scale, head.cluster_scales, head.exp2, sums)
    entered = most_frequent(clusters, sums)
    first, size = cluster_sums(entered, q, scale, head, tree, work)
    begin_token(first + most_frequent(size, work.inner), lane, mixer)
    low, high, level = np.int64(0), sums[clusters], 1
    node, known = np.int64(0), np.int64(0)
    while node >= 0:
        if nodes[node, ABOVE] != level:
            level = 0
            cluster = np.int64(tree.cluster_of[nodes[node, MID]])
            if cluster != entered:
                _, size = cluster_sums(cluster, q, scale, head, tree, work)
            sums = work.inner
            low, high = np.int64(0), sums[size]
        middle = sums[nodes[node, SPLIT]]
        p1 = probability(low, middle, high)
        bit, known = code_decision(token, node, p1, known, lane, tree, buffer, mixer, coder, data)
        if bit == 1:
            low = middle
        else:
            high = middle
        node = np.int64(nodes[node, LEFT + bit])
    finish_token(~node, known, lane, tree, buffer)
    return ~node


@inlined
def code_byte(token, lane, tree, buffer, mixer, coder, data):
    """Do the same as :func:`code_token` in a tree of the 256 bytes, without a language model."""
    begin_token(np.int64(-1), lane, mixer)
    node = np.int64(0)
    while node >= 0:
        bit, _ = code_decision(token, node, np.int64(0), np.int64(0), lane, tree, buffer, mixer, coder, data)
        node = np.int64(tree.nodes[node, LEFT + bit])
    finish_token(~node, np.int64(0), lane, tree, buffer)


@jit
def encode_steps(tokens, acc1, q, scale, head, tree, work, buffer, mixer, coder, out):
    """Encode a stretch of time; return OK or OVERFLOW.

    Args:
        tokens: int32[T, B], -1 where a lane has ended.
        acc1: int32[T, B, C], the products for the clusters.
        q: int16[T, B, d], the rows they were made from, and `scale` float32[T, B].
        head, tree, work, buffer, mixer, coder: Head, ClusteredTree, Work, TextBuffer, Mixer and the coder's state.
        out: uint8, the payload; nothing is written beyond it.
    """
    head, tree, work = borrowed_head(head), borrowed_tree(tree), borrowed_work(work)
    buffer, mixer = text_buffer.borrowed(buffer), state.borrowed(mixer)
    coder, out = unowned(coder), unowned(out)
    for step in range(tokens.shape[0]):
        for lane in range(tokens.shape[1]):
            token = np.int64(tokens[step, lane])
            if token < 0:
                continue
            if bytes_at_most(coder, tree.height) > len(out):
                return OVERFLOW
            rows = unowned(acc1[step, lane]), unowned(q[step, lane]), scale[step, lane]
            code_token(token, buffer.lanes[lane], *rows, head, tree, work, buffer, mixer, coder, out)
    return OK


@jit
def decode_lanes(first, end, acc1, q, scale, head, tree, work, buffer, mixer, coder, payload, tokens):
    """Decode one token for each unfinished lane of ``first <= lane < end``.

    Safe for any payload: a token is one of the vocabulary, at least one byte long, and stays inside its lane.

    Args:
        first, end: the lanes; the rows of `acc1`, `q` and `scale` are those of these lanes.
        acc1, q, scale: as for :func:`encode_steps`, of one step.
        head, tree, work, buffer, mixer, coder: as there.
        payload: uint8.
        tokens: int32[B], written for the lanes that took part.

    Returns:
        OK, OVERREAD or TOO_LONG; after the latter two nothing of the frame may be used.
    """
    head, tree, work = borrowed_head(head), borrowed_tree(tree), borrowed_work(work)
    buffer, mixer = text_buffer.borrowed(buffer), state.borrowed(mixer)
    coder, payload = unowned(coder), unowned(payload)
    for lane in range(first, end):
        record = buffer.lanes[lane]
        if record["at"] >= record["end"]:
            continue
        row = lane - first
        rows = unowned(acc1[row]), unowned(q[row]), scale[row]
        token = code_token(np.int64(DECODE), record, *rows, head, tree, work, buffer, mixer, coder, payload)
        if overread(coder, payload):
            return OVERREAD
        if record["at"] > record["end"]:
            return TOO_LONG
        tokens[lane] = token
    return OK


@jit
def encode_bytes(content, tree, buffer, mixer, coder, out):
    """Encode `content` uint8, the next bytes of the buffer's only lane, without a language model.

    Return OK or OVERFLOW; nothing is written beyond `out` uint8.
    """
    tree, buffer, mixer = borrowed_tree(tree), text_buffer.borrowed(buffer), state.borrowed(mixer)
    content, coder, out, lane = unowned(content), unowned(coder), unowned(out), buffer.lanes[0]
    for i in range(len(content)):
        if bytes_at_most(coder, tree.height) > len(out):
            return OVERFLOW
        code_byte(np.int64(content[i]), lane, tree, buffer, mixer, coder, out)
    return OK


@jit
def decode_bytes(size, tree, buffer, mixer, coder, payload):
    """Decode `size` bytes of the buffer's only lane from `payload` uint8; return OK or OVERREAD."""
    tree, buffer, mixer = borrowed_tree(tree), text_buffer.borrowed(buffer), state.borrowed(mixer)
    coder, payload, lane = unowned(coder), unowned(payload), buffer.lanes[0]
    for _ in range(size):
        code_byte(np.int64(DECODE), lane, tree, buffer, mixer, coder, payload)
        if overread(coder, payload):
            return OVERREAD
    return OK
