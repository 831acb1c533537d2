"""The heads that networks have, as the coder sees them: each function here is that of the head it is called with.

The two-level head of :mod:`llmzip.network.head` leaves the second softmax level to the coder, which needs one or two of
its clusters; the flat one of :mod:`llmzip.network.llama.flat_head` comes with the frequencies of all tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numba.extending import overload

from llmzip.network import head as two_level
from llmzip.network.head import Head, Prediction
from llmzip.network.llama import flat_head as flat
from llmzip.network.llama.flat_head import FlatHead, FlatPrediction

AnyHead: TypeAlias = Head | FlatHead
AnyPrediction: TypeAlias = Prediction | FlatPrediction

INLINED: Any = {"forceinline": True}


def join(groups: Sequence[AnyPrediction]) -> AnyPrediction:
    """Return the predictions for groups of lanes side by side."""
    kind: Any = type(groups[0])
    joined: AnyPrediction = kind(*(np.concatenate(arrays, axis=1) for arrays in zip(*groups, strict=True)))
    return joined


def steps_of(prediction: AnyPrediction, steps: slice) -> AnyPrediction:
    """Return the predictions for some of the steps."""
    kind: Any = type(prediction)
    some: AnyPrediction = kind(*(array[steps] for array in prediction))
    return some


def borrowed_head(head: Any) -> Any:
    """Return the head with arrays without owners, for kernels."""
    return head  # kernels get one of those below


def borrowed_prediction(prediction: Any, step: Any, lane: Any) -> Any:
    """Return the prediction of one row, arrays without owners, for kernels."""
    flat_one = isinstance(prediction, FlatPrediction)
    return (flat.borrowed_prediction if flat_one else two_level.borrowed_prediction)(prediction, step, lane)


def open_token(prediction: Any, head: Any, tree: Any, work: Any) -> Any:
    """Write the clusters' running sums into `work.sums` and those of one cluster's tokens into `work.inner`.

    Return the likeliest token, its cluster, and the number of the cluster's tokens.
    """
    return (flat if isinstance(head, FlatHead) else two_level).open_token(prediction, head, tree, work)


def cluster_sums(cluster: Any, prediction: Any, head: Any, tree: Any, work: Any) -> Any:
    """Write the running sums of a cluster's tokens into `work.inner`; return the number of its tokens."""
    return (flat if isinstance(head, FlatHead) else two_level).cluster_sums(cluster, prediction, head, tree, work)


@overload(borrowed_head, jit_options=INLINED)
def _borrowed_head(head):
    if head.instance_class is FlatHead:
        return lambda head: head
    return lambda head: two_level.borrowed_head(head)


@overload(borrowed_prediction, jit_options=INLINED)
def _borrowed_prediction(prediction, step, lane):  # noqa: ARG001 - the compiled version for all types
    if prediction.instance_class is FlatPrediction:
        return lambda prediction, step, lane: flat.borrowed_prediction(prediction, step, lane)
    return lambda prediction, step, lane: two_level.borrowed_prediction(prediction, step, lane)


@overload(open_token, jit_options=INLINED)
def _open_token(prediction, head, tree, work):  # noqa: ARG001
    if head.instance_class is FlatHead:
        return lambda prediction, head, tree, work: flat.open_token(prediction, head, tree, work)
    return lambda prediction, head, tree, work: two_level.open_token(prediction, head, tree, work)


@overload(cluster_sums, jit_options=INLINED)
def _cluster_sums(cluster, prediction, head, tree, work):  # noqa: ARG001
    if head.instance_class is FlatHead:
        return lambda cluster, prediction, head, tree, work: flat.cluster_sums(cluster, prediction, head, tree, work)
    return lambda cluster, prediction, head, tree, work: two_level.cluster_sums(cluster, prediction, head, tree, work)
