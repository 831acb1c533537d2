"""The output of a network with one softmax over the whole vocabulary."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.jit import inlined, jit, unowned


class FlatHead(NamedTuple):
    """The output layer as the coder sees it: the network has turned products into frequencies itself."""

    clusters: int


class FlatPrediction(NamedTuple):
    """What the network predicts for ``T`` steps of ``B`` lanes, rows in time order; in kernels also for one row.

    Attributes:
        frequencies: int32[T, B, V or more], of the tokens.
        sums: int64[T, B, C + 1], running sums of the clusters' frequencies.
        likeliest: int32[T, B], the token with the highest frequency, the first of equals.
    """

    frequencies: npt.NDArray[np.int32]
    sums: npt.NDArray[np.int64]
    likeliest: npt.NDArray[np.int32]

    def by_rows(self) -> FlatPrediction:
        """Return the same arrays with steps and lanes as one axis."""
        kind: Any = FlatPrediction
        rows: FlatPrediction = kind(*(array.reshape(-1, *array.shape[2:]) for array in self))
        return rows


def new_prediction(steps: int, lanes: int, columns: int, ends: int) -> FlatPrediction:
    """Return an empty prediction with rows of `columns` frequencies and `ends` running sums."""
    return FlatPrediction(
        np.empty((steps, lanes, columns), np.int32),
        np.empty((steps, lanes, ends), np.int64),
        np.empty((steps, lanes), np.int32),
    )


@jit
def sum_clusters(frequencies, starts, sums):
    """Write the running sums of the clusters into `sums` int64[C + 1]; return the likeliest token.

    `frequencies` int32[V or more] are a row's; `starts` int32[C + 1] are the clusters' first tokens, and V.
    """
    most, where = np.int32(0), 0
    sums[0] = 0
    for c in range(len(starts) - 1):
        total, peak = np.int64(0), np.int32(0)
        for i in range(starts[c], starts[c + 1]):
            total += np.int64(frequencies[i])
            peak = frequencies[i] if frequencies[i] > peak else peak
        sums[c + 1] = sums[c] + total
        if peak > most:
            most, where = peak, c
    token = starts[where]
    while frequencies[token] != most:
        token += 1
    return token


@inlined
def borrowed_prediction(prediction, step, lane):
    """Return the prediction of one row, arrays without owners, for kernels."""
    return FlatPrediction(
        unowned(prediction.frequencies[step, lane]),
        unowned(prediction.sums[step, lane]),
        prediction.likeliest[step, lane],
    )


@inlined
def open_token(prediction, head, tree, work):
    """Do for a flat head what :func:`llmzip.network.heads.open_token` says."""
    for i in range(head.clusters + 1):
        work.sums[i] = prediction.sums[i]
    guess = np.int64(prediction.likeliest)
    entered = np.int64(tree.cluster_of[guess])
    return guess, entered, cluster_sums(entered, prediction, head, tree, work)


@inlined
def cluster_sums(cluster, prediction, head, tree, work):  # noqa: ARG001 - like cluster_sums
    """Do for a flat head what :func:`llmzip.network.heads.cluster_sums` says."""
    first, end = tree.starts[cluster], tree.starts[cluster + 1]
    total = np.int64(0)
    work.inner[0] = 0
    for i in range(end - first):
        total += np.int64(prediction.frequencies[first + i])
        work.inner[i + 1] = total
    return np.int64(end - first)
