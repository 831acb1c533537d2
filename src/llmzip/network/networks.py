"""Which network, and which head, a model's weights stand for."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np

from llmzip.network.cpu import ExactNetwork
from llmzip.network.head import new_head
from llmzip.network.heads import AnyHead, AnyPrediction
from llmzip.network.llama.flat_head import FlatHead
from llmzip.network.llama.weights import LlamaWeights
from llmzip.network.weights import Weights

AnyWeights: TypeAlias = Weights | LlamaWeights


class Session(Protocol):
    """The network's state of several texts; not for two threads at a time."""

    def run(self, ids: np.ndarray) -> AnyPrediction:
        """Run inputs int32 ``[T, B]`` (the start of text first) and return the prediction of what follows each."""


class Network(Protocol):
    """Weights bound to a device; may be shared between sessions and threads."""

    segment_rows: int  # rows the encoder runs at once

    def session(self, lanes: int, *, recheck: bool = False) -> Session:
        """Return a fresh state for `lanes` texts; `recheck` recomputes some of what is computed another way."""


def bind(weights: AnyWeights, *, device: str = "cpu", backend: str | None = None) -> Network:
    """Return the network of `weights` on a torch device, or on the CPU with a matmul backend, None for the fastest."""
    if isinstance(weights, LlamaWeights):
        if device == "cpu":
            from llmzip.network.llama.forward import LlamaNetwork  # takes time that other networks need not spend

            return LlamaNetwork(weights, backend=backend)
        from llmzip.network.llama.torch_device import TorchLlama

        return TorchLlama(weights, device)
    if device == "cpu":
        return ExactNetwork(weights, backend=backend)
    from llmzip.network.torch_device import TorchNetwork

    return TorchNetwork(weights, device)


def head_of(weights: AnyWeights) -> AnyHead:
    """Return the output layer as the coder reads it."""
    if isinstance(weights, LlamaWeights):
        return FlatHead(len(weights.cluster_starts))
    return new_head(weights.head_token.q, weights.head_cluster.scale, weights.head_token.scale)
