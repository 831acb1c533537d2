"""The output layer: the two softmax levels of a token."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.exp2 import exp2_table
from llmzip.jit import inlined, unowned
from llmzip.network.softmax import multiply, running_sums
from llmzip.vocabulary.tree import ClusteredTree


class Head(NamedTuple):
    """The output layer and the table for its frequencies.

    Attributes:
        weights: int8[V, d], a row for each token.
        cluster_scales: float32[C], the scales of the clusters' products.
        token_scales: float32[V], the scales of the rows of `weights`.
        exp2: int32[4096], from exp2.exp2_table.
    """

    weights: npt.NDArray[np.int8]
    cluster_scales: npt.NDArray[np.float32]
    token_scales: npt.NDArray[np.float32]
    exp2: npt.NDArray[np.int32]


class Prediction(NamedTuple):
    """What the network predicts for ``T`` steps of ``B`` lanes, rows in time order; in kernels also for one row.

    Attributes:
        cluster_acc: int32[T, B, C], the products of the head's first level.
        hidden: int16[T, B, d], final rows of 12 bits.
        scale: float32[T, B], their scales.
    """

    cluster_acc: npt.NDArray[np.int32]
    hidden: npt.NDArray[np.int16]
    scale: npt.NDArray[np.float32]


class Work(NamedTuple):
    """Buffers for the softmax levels: acc int32[n], and sums int64[n + 1] of the clusters and inside one."""

    acc: npt.NDArray[np.int32]
    sums: npt.NDArray[np.int64]
    inner: npt.NDArray[np.int64]


def new_head(
    weights: npt.NDArray[np.int8],
    cluster_scales: npt.NDArray[np.float32],
    token_scales: npt.NDArray[np.float32],
) -> Head:
    """Return the head with its table; the arrays must be contiguous."""
    return Head(weights, cluster_scales, token_scales, exp2_table())


def new_work(tree: ClusteredTree) -> Work:
    """Return buffers large enough for the clusters and for every cluster's rows."""
    choices = max(len(tree.starts) - 1, int(np.diff(tree.starts).max()))
    return Work(np.empty(choices, np.int32), *np.empty((2, choices + 1), np.int64))


@inlined
def borrowed_prediction(prediction, step, lane):
    """Return the prediction of one row, arrays without owners, for kernels."""
    return Prediction(
        unowned(prediction.cluster_acc[step, lane]),
        unowned(prediction.hidden[step, lane]),
        prediction.scale[step, lane],
    )


@inlined
def borrowed_work(work):
    """Return the buffers as arrays without owners, for kernels."""
    return Work(unowned(work.acc), unowned(work.sums), unowned(work.inner))


@inlined
def borrowed_head(head):
    """Return the head with arrays without owners, for kernels."""
    return Head(unowned(head.weights), unowned(head.cluster_scales), unowned(head.token_scales), unowned(head.exp2))


@inlined
def most_frequent(choices, sums):
    """Return the choice with the highest frequency, the first of equals; `sums` are running sums."""
    best, most = np.int64(0), np.int64(0)
    for i in range(choices):
        frequency = sums[i + 1] - sums[i]
        if frequency > most:
            best, most = np.int64(i), frequency
    return best


@inlined
def open_token(prediction, head, tree, work):
    """Do for a head of two levels what :func:`llmzip.network.heads.open_token` says.

    The token is the likeliest of the likeliest cluster.
    """
    clusters = len(tree.starts) - 1
    for i in range(clusters):
        work.acc[i] = prediction.cluster_acc[i]
    running_sums(work.acc[:clusters], prediction.scale, head.cluster_scales, head.exp2, work.sums)
    entered = most_frequent(clusters, work.sums)
    size = cluster_sums(entered, prediction, head, tree, work)
    return np.int64(tree.starts[entered]) + most_frequent(size, work.inner), entered, size


@inlined
def cluster_sums(cluster, prediction, head, tree, work):
    """Write the running sums of a cluster's tokens into `work.inner`; return the number of its tokens."""
    first, end = tree.starts[cluster], tree.starts[cluster + 1]
    acc = work.acc[: end - first]
    multiply(head.weights, first, prediction.hidden, acc)
    running_sums(acc, prediction.scale, head.token_scales[first:end], head.exp2, work.inner)
    return np.int64(end - first)
