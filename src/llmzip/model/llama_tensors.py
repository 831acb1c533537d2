"""The weights of a Llama-type network as the tensors of a model file, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmzip.errors import ModelError
from llmzip.network.llama.weights import LlamaLayer, LlamaWeights, Shape, layer_shapes
from llmzip.network.weights import Matrix

PROFILE = "llama-1"
ARCH = LlamaWeights.arch
SIZES = ("width", "heads", "kv_heads", "head_width", "hidden", "segment")


def header(weights: LlamaWeights) -> dict[str, Any]:
    """Return the description of the weights."""
    return {
        "arch": ARCH,
        "profile": PROFILE,
        **{name: getattr(weights.shape, name) for name in SIZES},
        "layers": len(weights.layers),
        "vocab": weights.vocab,
        "epsilon": float(np.float32(weights.epsilon)),
    }


def tensors_of(weights: LlamaWeights) -> dict[str, np.ndarray]:
    """Return the tensors of the weights."""
    named: dict[str, Matrix | np.ndarray] = {"embedding": weights.embedding, "norm": weights.norm}
    for i, layer in enumerate(weights.layers):
        named |= {f"layers.{i}.{name.replace('_', '.', 1)}": part for name, part in vars(layer).items()}
    if weights.head is not None:
        named["head"] = weights.head
    named |= {
        "rotations.cosines": weights.cosines,
        "rotations.sines": weights.sines,
        "absent": weights.absent,
        "head.cluster.starts": weights.cluster_starts,
    }
    tensors: dict[str, np.ndarray] = {}
    for name, part in named.items():
        if isinstance(part, Matrix):
            tensors[name + ".integers"], tensors[name + ".scale"] = part.q, part.scale
        else:
            tensors[name] = part
    return tensors


def weights_from(tensors: dict[str, np.ndarray], info: dict[str, Any]) -> LlamaWeights:
    """Return the weights in the tensors of a model file; raises ModelError or KeyError for anything unsound."""
    sizes = [info[name] for name in SIZES]
    if not all(isinstance(size, int) for size in sizes) or not isinstance(info["epsilon"], float):
        raise ModelError("the model's sizes are no numbers")
    shape = Shape(*sizes)

    def part(name: str, size: tuple[int, ...]) -> Matrix | np.ndarray:
        if len(size) == 2:
            return Matrix(tensors[name + ".integers"], tensors[name + ".scale"])
        return tensors[name]

    def layer(i: int) -> LlamaLayer:
        parts: dict[str, Any] = {
            name: part(f"layers.{i}.{name.replace('_', '.', 1)}", size) for name, size in layer_shapes(shape).items()
        }
        return LlamaLayer(**parts)

    return LlamaWeights(
        shape,
        Matrix(tensors["embedding.integers"], tensors["embedding.scale"]),
        tuple(layer(i) for i in range(info["layers"])),
        tensors["norm"],
        Matrix(tensors["head.integers"], tensors["head.scale"]) if "head.integers" in tensors else None,
        info["epsilon"],
        tensors["rotations.cosines"],
        tensors["rotations.sines"],
        tensors["absent"],
        tensors["head.cluster.starts"],
    )
