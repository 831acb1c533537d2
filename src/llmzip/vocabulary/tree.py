"""The static tree of binary decisions that leads to a token, and its cut into clusters.

The tokens are sorted by bytes, so those that share a prefix are a range of ids [lo, hi). A node of
the tree is such a range of two or more tokens with one decision, "is the token >= mid?":

* where the first token is itself the prefix that all of them share, the decision is END: bit 0
  takes this token (mid = lo + 1), bit 1 goes on with the longer ones;
* else it is the first bit, bytes in order and their most significant bit first, in which the tokens
  differ. Bits that all of them share need no decision.

V tokens make V - 1 nodes. They are numbered in preorder with the left child (bit 0) first, so a left
child follows its parent directly, and decoding reads neighbouring memory.

*Clusters* are subtrees (or single tokens) that together cover the vocabulary: the classes of the
first of the two softmax levels. The range of every node is a union of whole clusters or
lies inside one, so every decision's probability comes from one level only.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.jit import inlined, jit, unowned

END = 8  # in `bit`: the decision whether the token ends

BLOCK_LEVELS = 4  # of decisions in a row that share a block of adaptive slots
BLOCK = 1 << BLOCK_LEVELS

# Columns of ClusteredTree.nodes.
MID, SPLIT, LEFT, RIGHT, ABOVE, NODE_INDEX, DEPTH, BIT, PARTIAL = range(9)


@dataclass(frozen=True)
class DecisionTree:
    """The tree of a vocabulary: int32[V - 1] each, by node number; node 0 is the root.

    Attributes:
        lo, mid, hi: the range of tokens and the first one of bit 1.
        left, right: the child after bit 0 and after bit 1: a node, or ``~token`` for a leaf.
        depth: the number of whole bytes that all tokens of the range share.
        bit: the bit of the next byte that is decided, 0 (most significant) to 7, or END.
        node_index: BLOCK * r + i, an index that keeps together the nodes on the way to a token: r is the node
            where the last multiple of BLOCK_LEVELS decisions from the root was reached, i (1 to BLOCK - 1)
            numbers the nodes from there on as in a heap: 1, then 2 i for the left and 2 i + 1 for the right
            child of i.
        size: the number of tokens V.
        blob, offsets: uint8 and int64[V + 1], the bytes of the tokens back to back.
        height: the largest number of decisions that a token takes.
    """

    lo: npt.NDArray[np.int32]
    mid: npt.NDArray[np.int32]
    hi: npt.NDArray[np.int32]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    depth: npt.NDArray[np.int32]
    bit: npt.NDArray[np.int32]
    node_index: npt.NDArray[np.int32]
    size: int
    blob: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    height: int

    @classmethod
    def build(cls, tokens: Sequence[bytes]) -> DecisionTree:
        """Build the tree of two or more non-empty byte strings in strictly ascending order."""
        if len(tokens) < 2 or not tokens[0]:
            raise ValueError("a decision tree needs two or more non-empty tokens")
        if any(a >= b for a, b in pairwise(tokens)):
            raise ValueError("tokens are not in strictly ascending byte order")
        blob = np.frombuffer(b"".join(tokens), np.uint8)
        offsets = np.zeros(len(tokens) + 1, np.int64)
        np.cumsum([len(token) for token in tokens], out=offsets[1:])
        fields = np.empty((8, len(tokens) - 1), np.int32)
        height = fill_nodes(blob, offsets, fields)
        lo, mid, hi, left, right, depth, bit, index = fields
        return cls(
            lo,
            mid,
            hi,
            left,
            right,
            depth,
            bit,
            index,
            size=len(tokens),
            blob=blob,
            offsets=offsets,
            height=int(height),
        )


@inlined
def _push(stack, waiting, lo, hi, before, node_index):
    """Put a node on the stack, which has `waiting` already; return their number.

    Value by value: for a whole row numba compiles an error message about shapes, which takes seconds.
    """
    stack[waiting, 0], stack[waiting, 1], stack[waiting, 2], stack[waiting, 3] = lo, hi, before, node_index
    return waiting + 1


@jit
def fill_nodes(blob, offsets, fields):
    """Fill `fields` int32 ``[8, V - 1]``, the rows in the order of DecisionTree; return the height."""
    tokens = len(offsets) - 1
    height = 0
    # Nodes still to be filled: lo, hi, number of decisions before, node_index. They are disjoint ranges.
    stack = np.empty((tokens, 4), np.int64)
    waiting = _push(stack, 0, 0, tokens, 0, 1)
    node = 0
    while waiting > 0:
        waiting -= 1
        lo, hi, before, node_index = stack[waiting]
        height = max(height, before + 1)
        # The range is sorted, so all of it shares what its first and last token share.
        first, last = offsets[lo], offsets[hi - 1]
        length = offsets[lo + 1] - first
        depth = 0
        while depth < length and blob[first + depth] == blob[last + depth]:
            depth += 1
        if depth == length:
            bit = END
            mid = lo + 1
        else:
            different = np.int64(blob[first + depth]) ^ np.int64(blob[last + depth])
            bit = 0
            while (different << bit) & 128 == 0:
                bit += 1
            mid, above = lo + 1, hi - 1  # the first token with the bit set is in [mid, above]
            while mid < above:
                middle = (mid + above) >> 1
                if (np.int64(blob[offsets[middle] + depth]) << bit) & 128:
                    above = middle
                else:
                    mid = middle + 1
        # A subtree of n tokens has n - 1 nodes: that places the children without a search.
        fields[0, node] = lo
        fields[1, node] = mid
        fields[2, node] = hi
        left, right = node + 1, node + mid - lo
        fields[3, node] = left if mid - lo > 1 else ~lo
        fields[4, node] = right if hi - mid > 1 else ~mid
        fields[5, node] = depth
        fields[6, node] = bit
        fields[7, node] = node_index
        node += 1
        if (before + 1) % BLOCK_LEVELS == 0:
            left_index, right_index = left * BLOCK + 1, right * BLOCK + 1
        else:
            left_index = node_index + node_index % BLOCK  # same block, twice the number in it
            right_index = left_index + 1
        if hi - mid > 1:
            waiting = _push(stack, waiting, mid, hi, before + 1, right_index)
        if mid - lo > 1:
            waiting = _push(stack, waiting, lo, mid, before + 1, left_index)
    return height


def choose_clusters(tree: DecisionTree, counts: npt.ArrayLike, clusters: int) -> npt.NDArray[np.int32]:
    """Cut the tree into clusters of small expected size and return their first tokens.

    The cluster with the largest mass x size is split at its node until there are enough; of equals,
    the one with the lowest tokens.

    Args:
        tree: the tree of V tokens.
        counts: real [V], how often each token occurs in training text; not negative.
        clusters: their number C, 1 to V.

    Returns:
        int32[C], ascending from 0.
    """
    if not 1 <= clusters <= tree.size:
        raise ValueError(f"cannot cut {tree.size} tokens into {clusters} clusters")
    below = np.concatenate([[0], np.cumsum(np.asarray(counts, np.float64))])
    if below.shape != (tree.size + 1,):
        raise ValueError(f"{tree.size} tokens but {len(below) - 1} counts")

    def weighed(node: int, lo: int, hi: int) -> tuple[float, int, int]:
        return -float(below[hi] - below[lo]) * (hi - lo), lo, node

    heap = [weighed(0, 0, tree.size)]
    single: list[int] = []
    while len(heap) + len(single) < clusters:
        _, lo, node = heapq.heappop(heap)
        mid, hi = int(tree.mid[node]), int(tree.hi[node])
        for child, a, b in ((int(tree.left[node]), lo, mid), (int(tree.right[node]), mid, hi)):
            if child < 0:
                single.append(a)
            else:
                heapq.heappush(heap, weighed(child, a, b))
    return np.array(sorted(single + [lo for _, lo, _ in heap]), np.int32)


class ClusteredTree(NamedTuple):
    """What the kernels need of a tree and its clusters.

    Attributes:
        nodes: int32[V - 1, 9], the columns MID, SPLIT, LEFT, RIGHT, ABOVE, NODE_INDEX, DEPTH, BIT and
            PARTIAL. LEFT and RIGHT are the children; NODE_INDEX, DEPTH and BIT are the tree's. ABOVE is 1
            for a node above the cut, whose range holds two or more clusters, else 0. SPLIT is the
            position of MID among the choices of the node's level: above the cut a cluster, else a
            row counted from its cluster's first. PARTIAL is a 1 and the bits of the next byte that
            are known, 1 for END.
        cluster_of: int32[V], each token's cluster.
        starts: int32[C + 1], each cluster's first token, and V.
        blob, offsets: uint8 and int64[V + 1], the bytes of the tokens back to back.
        height: the largest number of decisions that a token takes.
    """

    nodes: npt.NDArray[np.int32]
    cluster_of: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    blob: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    height: int


def bind_clusters(tree: DecisionTree, starts: npt.ArrayLike) -> ClusteredTree:
    """Join a tree with its clusters, given as their first tokens ``[C]``, for the kernels.

    Raises ValueError unless the clusters cover the vocabulary and each is a subtree or one token.
    """
    first = np.asarray(starts, np.int64)
    if first.ndim != 1 or not first.size or first[0] != 0 or (np.diff(first) <= 0).any():
        raise ValueError("the clusters' first tokens are not an ascending list from 0")
    if first[-1] >= tree.size:
        raise ValueError("a cluster starts beyond the vocabulary")
    bounds = np.append(first, tree.size)
    sizes = np.diff(bounds)
    lo, mid, hi = (array.astype(np.int64) for array in (tree.lo, tree.mid, tree.hi))
    several = sizes > 1
    ranges = bounds[:-1][several] * (tree.size + 1) + bounds[1:][several]
    if not np.isin(ranges, lo * (tree.size + 1) + hi).all():
        raise ValueError("a cluster is not a subtree of the decision tree")
    cluster_of = np.repeat(np.arange(len(first)), sizes)
    # Two ranges of a tree are nested or apart, so a node that is not inside one cluster is a union
    # of clusters, and so are its children.
    above = cluster_of[lo] != cluster_of[hi - 1]
    split = np.where(above, cluster_of[mid], mid - first[cluster_of[mid]])
    # A node that decides bit k of a byte knows the k bits above it, which all of its tokens share.
    inside = tree.bit < END
    byte = tree.blob[np.where(inside, tree.offsets[mid] + tree.depth, 0)].astype(np.int64)
    partial = np.where(inside, (byte | 256) >> (8 - np.minimum(tree.bit, 7)), 1)
    columns = [mid, split, tree.left, tree.right, above, tree.node_index, tree.depth, tree.bit, partial]
    return ClusteredTree(
        nodes=np.stack(columns, axis=1).astype(np.int32),
        cluster_of=cluster_of.astype(np.int32),
        starts=bounds.astype(np.int32),
        blob=tree.blob,
        offsets=tree.offsets,
        height=tree.height,
    )


def most_bytes_per_decision(tree: ClusteredTree) -> float:
    """Return the largest quotient of a token's bytes by the number of decisions that lead to it."""
    lengths, best = np.diff(tree.offsets), 0.0
    level, decisions = np.zeros(1, np.int32), 1
    while level.size:
        children = tree.nodes[level][:, [LEFT, RIGHT]].ravel()
        tokens = ~children[children < 0]
        best = max(best, float(lengths[tokens].max(initial=0)) / decisions)
        level, decisions = children[children >= 0], decisions + 1
    return best


class Decision(NamedTuple):
    """One decision of the tree, as contexts see it: int64 columns of its node, see :class:`ClusteredTree`."""

    node_index: int
    depth: int
    bit: int
    partial: int


@inlined
def decision_of(tree, node):
    """Return the decision of `node`."""
    nodes = tree.nodes
    return Decision(
        np.int64(nodes[node, NODE_INDEX]),
        np.int64(nodes[node, DEPTH]),
        np.int64(nodes[node, BIT]),
        np.int64(nodes[node, PARTIAL]),
    )


@inlined
def borrowed_tree(tree):
    """Return the tree with arrays without owners, for kernels."""
    return ClusteredTree(
        unowned(tree.nodes),
        unowned(tree.cluster_of),
        unowned(tree.starts),
        unowned(tree.blob),
        unowned(tree.offsets),
        tree.height,
    )
