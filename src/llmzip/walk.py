"""The walk down the decision tree: the loop in which tokens become bits and bits become tokens.

For each token: the sums of the clusters' frequencies, a decision at each node above the cut; then
the products with the rows of the entered cluster, their sums, and the decisions inside. The
probability of each decision goes through the adaptive stage to the arithmetic coder.

Lanes take turns, one token each, in ascending order within a time step; they share the adaptive
state and the coder. One kernel walks for both directions, so they cannot drift apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.coder import bytes_at_most, decode_bit, encode_bit, overread
from llmzip.distribution import exp2_table, multiply, probability, running_sums
from llmzip.jit import jit
from llmzip.mixing import enter, learn, refine
from llmzip.tree import ABOVE, LEFT, MID, PLACE, SPLIT, ClusteredTree

# What the kernels return.
OK = 0
OVERFLOW = 1  # the payload might not fit into `out`
OVERREAD = 2  # the payload is too short for what it claims to hold
TOO_LONG = 3  # a token is longer than what is left of its lane

DECODE = -1  # in place of a token: it is to be decoded


class Head(NamedTuple):
    """Hold the output layer and the table for its frequencies.

    Attributes:
        weights: int8[V, d], a row for each token.
        cluster_scales: float32[C], the scales of the clusters' products.
        token_scales: float32[V], the scales of the rows of `weights`.
        exp2: int32[4096], from distribution.exp2_table.
    """

    weights: npt.NDArray[np.int8]
    cluster_scales: npt.NDArray[np.float32]
    token_scales: npt.NDArray[np.float32]
    exp2: npt.NDArray[np.int32]


class Work(NamedTuple):
    """Hold buffers for one softmax level: acc int32[n], sums int64[n + 1]."""

    acc: npt.NDArray[np.int32]
    sums: npt.NDArray[np.int64]


def new_head(
    weights: npt.NDArray[np.int8],
    cluster_scales: npt.NDArray[np.float32],
    token_scales: npt.NDArray[np.float32],
) -> Head:
    """Return the head with its table; the arrays must be contiguous."""
    return Head(weights, cluster_scales, token_scales, exp2_table())


def new_work(tree: ClusteredTree) -> Work:
    """Return buffers that are large enough for the clusters and for every cluster's rows."""
    choices = max(len(tree.starts) - 1, int(np.diff(tree.starts).max()))
    return Work(np.empty(choices, np.int32), np.empty(choices + 1, np.int64))


@jit
def descend(token, node, level, total, tree, work, maps, coder, data):
    """Code the decisions from `node` down to the end of its level; return the node or leaf reached.

    `level` is the ABOVE of the nodes to pass, `total` the sum over the node's range;
    the other arguments are as for :func:`walk`.
    """
    nodes = tree.nodes
    low, high = np.int64(0), total
    while node >= 0 and nodes[node, ABOVE] == level:
        middle = work.sums[nodes[node, SPLIT]]
        p1 = probability(low, middle, high)
        p1 = refine(p1, node, np.int64(nodes[node, PLACE]), maps)
        if token >= 0:
            bit = 1 if token >= nodes[node, MID] else 0
            encode_bit(coder, data, p1, bit)
        else:
            bit = decode_bit(coder, data, p1)
        learn(bit, maps)
        if bit == 1:
            low = middle
        else:
            high = middle
        node = np.int64(nodes[node, LEFT + bit])
    return node


@jit
def walk(token, previous, acc1, q, scale, head, tree, work, maps, coder, data):
    """Encode `token` onto `data`, or decode one from it if `token` is DECODE; return the token.

    Args:
        token: the token or DECODE.
        previous: int32[3], the lane's last tokens, the newest first, -1 before its begin; updated.
        acc1: int32[C], the products for the clusters.
        q, scale: int16[d] and float32, the row that they were made from.
        head, tree, work, maps, coder: Head, ClusteredTree, Work, Maps and the coder's state.
        data: uint8, the payload.
    """
    enter(previous, maps)
    clusters = len(tree.starts) - 1
    acc = work.acc[:clusters]
    acc[:] = acc1
    running_sums(acc, scale, head.cluster_scales, head.exp2, work.sums)
    total = work.sums[clusters]
    node = descend(token, np.int64(0), 1, total, tree, work, maps, coder, data)
    if node >= 0:
        cluster = tree.cluster_of[tree.nodes[node, MID]]
        first, end = tree.starts[cluster], tree.starts[cluster + 1]
        acc = work.acc[: end - first]
        multiply(head.weights, first, q, acc)
        running_sums(acc, scale, head.token_scales[first:end], head.exp2, work.sums)
        total = work.sums[end - first]
        node = descend(token, node, 0, total, tree, work, maps, coder, data)
    previous[2], previous[1], previous[0] = previous[1], previous[0], ~node
    return ~node


@jit
def encode_steps(tokens, acc1, q, scale, head, tree, work, maps, coder, previous, out):
    """Encode a stretch of time; return OK or OVERFLOW.

    Args:
        tokens: int32[T, B], -1 where a lane has ended.
        acc1: int32[T, B, C], the products for the clusters.
        q: int16[T, B, d], the rows they were made from, and `scale` float32[T, B].
        head, tree, work, maps, coder: Head, ClusteredTree, Work, Maps and the coder's state.
        previous: int32[B, 3], each lane's last tokens, the newest first, -1 before its begin; updated.
        out: uint8, the payload; nothing is written beyond it.
    """
    for step in range(tokens.shape[0]):
        for lane in range(tokens.shape[1]):
            token = np.int64(tokens[step, lane])
            if token < 0:
                continue
            if bytes_at_most(coder, tree.height) > len(out):
                return OVERFLOW
            walk(
                token,
                previous[lane],
                acc1[step, lane],
                q[step, lane],
                scale[step, lane],
                head,
                tree,
                work,
                maps,
                coder,
                out,
            )
    return OK


@jit
def decode_lanes(
    begin,
    end,
    remaining,
    acc1,
    q,
    scale,
    head,
    tree,
    work,
    maps,
    coder,
    previous,
    payload,
    tokens,
    lengths,
):
    """Decode one token for each unfinished lane of ``begin <= lane < end``.

    Safe for any payload: a token is one of the vocabulary, at least one byte long, and each call
    takes some of `remaining`.

    Args:
        begin, end: the lanes; the rows of `acc1`, `q` and `scale` are those of these lanes.
        remaining: int64[B], the bytes left of each lane, 0 if it has ended; updated.
        acc1, q, scale: as for :func:`encode_steps`, of one step.
        head, tree, work, maps, coder: Head, ClusteredTree, Work, Maps and the coder's state.
        previous: int32[B, 3], each lane's last tokens, the newest first, -1 before its begin; updated.
        payload: uint8.
        tokens: int32[B], written for the lanes that took part.
        lengths: int32[V], the lengths of the tokens in bytes.

    Returns:
        OK, OVERREAD or TOO_LONG; after the latter two nothing of the frame may be used.
    """
    for lane in range(begin, end):
        if remaining[lane] == 0:
            continue
        row = lane - begin
        token = walk(
            np.int64(DECODE),
            previous[lane],
            acc1[row],
            q[row],
            scale[row],
            head,
            tree,
            work,
            maps,
            coder,
            payload,
        )
        if overread(coder, payload):
            return OVERREAD
        if lengths[token] > remaining[lane]:
            return TOO_LONG
        remaining[lane] -= lengths[token]
        tokens[lane] = token
    return OK
