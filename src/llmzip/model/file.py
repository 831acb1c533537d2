"""Model files: one ``.safetensors`` with weights, vocabulary and a JSON description.

Matrices of 7-bit weights are packed, eight values in seven bytes. All metadata sits in one JSON string under
the key ``llmzip``: safetensors writes several keys in random order, and a model is named by the SHA-256 of
its file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from llmzip.errors import ModelError
from llmzip.mixing.initial_state import InitialState
from llmzip.mixing.layout import BYTES_PER_WEIGHT, MODEL_BYTES, MOST_DICTIONARY_BYTES
from llmzip.model import llama_tensors
from llmzip.model.registry import MAX_FILE_BYTES
from llmzip.network.llama.weights import LlamaWeights
from llmzip.network.networks import AnyWeights
from llmzip.network.weights import LayerWeights, Matrix, OtherLayer, Weights
from llmzip.vocabulary.tokenizer import OWN as OWN_SPLITTING
from llmzip.vocabulary.tokenizer import Tokenizer

FILE_VERSION = 0
PROFILE = "exact-2"
PROFILES = {llama_tensors.ARCH: llama_tensors.PROFILE}  # by architecture, where it is another
MAX_HEADER_BYTES = 1 << 20  # JSON takes thirty times its size in memory; a large model's has some 100 KB
UNPACKED_AT_ONCE = 1 << 14  # words of eight weights: more do not stay in the cache
NO_DICTIONARY = np.empty(0, np.uint16)


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes:
        digest: SHA-256 of its file.
        info: the JSON description.
        initial_state: the pretrained initial state of the mixer.
        dictionary: uint16 tokens of a text in which frames find repeats from their beginning on.
    """

    weights: AnyWeights
    tokenizer: Tokenizer
    digest: bytes
    info: dict[str, Any]
    initial_state: InitialState
    dictionary: npt.NDArray[np.uint16] = field(default_factory=lambda: NO_DICTIONARY)

    @property
    def memory(self) -> int:
        """Return the memory in bytes, about, that coding with it takes."""
        if isinstance(self.weights, LlamaWeights):
            return BYTES_PER_WEIGHT * self.weights.size
        return MODEL_BYTES

    @property
    def published(self) -> bool:
        """Return whether the network is a published one: large and slow."""
        return isinstance(self.weights, LlamaWeights)


def pack7(q: np.ndarray) -> np.ndarray:
    """Pack int8 values in [-64, 63], eight to seven bytes (uint8); zeros fill up the last eight."""
    padded = np.zeros(-(-q.size // 8) * 8, np.int64)
    padded[: q.size] = q.reshape(-1)
    fields = (padded.reshape(-1, 8) + 64).astype(np.uint64)
    words = np.bitwise_or.reduce(fields << (np.arange(8, dtype=np.uint64) * np.uint64(7)), axis=1)
    return np.ascontiguousarray(words.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :7]).reshape(-1)


def unpack7(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo :func:`pack7`; raises ValueError if `packed` does not have the size that `shape` needs."""
    count = math.prod(shape)
    if packed.dtype != np.uint8 or packed.shape != (-(-count // 8) * 7,):
        raise ValueError(f"weights packed as {packed.dtype} {packed.shape}, not as the shape {shape} needs")
    packed = packed.reshape(-1, 7)
    fields = np.empty((len(packed), 8), np.uint8)
    words = np.zeros((UNPACKED_AT_ONCE, 8), np.uint8)
    for at in range(0, len(packed), UNPACKED_AT_ONCE):
        part = packed[at : at + UNPACKED_AT_ONCE]
        words[: len(part), :7] = part
        # 56 bits are spread over 64, all eight values at once: into halves of 28 bits, quarters of 14, bytes of 7.
        spread: np.ndarray = words[: len(part)].view("<u8")
        for bits, low in ((4, 0x000000000FFFFFFF), (2, 0x00003FFF00003FFF), (1, 0x007F007F007F007F)):
            spread = (spread & np.uint64(low)) | ((spread & ~np.uint64(low)) << np.uint64(bits))
        np.subtract(spread.view(np.uint8), 64, out=fields[at : at + len(part)])
    return fields.view(np.int8).reshape(-1)[:count].reshape(shape)


def _parts(layer: LayerWeights | OtherLayer) -> dict[str, Matrix | np.ndarray]:
    """Return what a layer consists of by its names in a file."""
    if isinstance(layer, OtherLayer):
        return {name.replace("_", ".", 1): part for name, part in layer.parts().items()}
    return {
        "token.in": layer.token_in,
        "token.out": layer.token_out,
        "channel.up": layer.channel_up,
        "channel.down": layer.channel_down,
        "token.shift": layer.token_shift,
        "token.forget_bias": layer.forget_bias,
        "channel.shift": layer.channel_shift,
    }


def _tensors_of(weights: Weights) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of the weights of a network with two softmax levels."""
    named: dict[str, Matrix | np.ndarray] = {"embedding": weights.embedding}
    for i, layer in enumerate(weights.layers):
        named |= {f"layers.{i}.{name}": part for name, part in _parts(layer).items()}
    named |= {"head.cluster": weights.head_cluster, "head.token": weights.head_token}
    tensors: dict[str, npt.NDArray[Any]] = {}
    for name, part in named.items():
        if isinstance(part, Matrix):
            tensors[name + ".packed"] = pack7(part.q)
            tensors[name + ".scale"] = part.scale
        else:
            tensors[name] = part
    tensors["head.cluster.starts"] = weights.cluster_starts
    return tensors


def _header(weights: Weights) -> dict[str, Any]:
    """Return the description of the weights of a network with two softmax levels."""
    header = {
        "profile": PROFILE,
        "width": weights.width,
        "hidden": weights.hidden,
        "layers": len(weights.layers),
        "vocab": weights.vocab,
    }
    return header if weights.arch == "gated" else header | {"arch": weights.arch}


def dump(
    weights: AnyWeights,
    tokenizer: Tokenizer,
    info: dict[str, Any],
    initial_state: InitialState | None = None,
    dictionary: npt.NDArray[np.uint16] = NO_DICTIONARY,
) -> bytes:
    """Return the bytes of a model file; the same input gives the same bytes.

    Without `initial_state` the mixer is untrained.
    """
    tensors = llama_tensors.tensors_of(weights) if isinstance(weights, LlamaWeights) else _tensors_of(weights)
    tensors["vocabulary.bytes"] = np.frombuffer(b"".join(tokenizer.tokens), np.uint8)
    tensors["vocabulary.lengths"] = np.array([len(t) for t in tokenizer.tokens], np.uint8)
    tensors["vocabulary.ranks"] = tokenizer.ranks.astype(np.int32)
    tensors.update((initial_state or InitialState.untrained(model=True)).tensors())
    if len(dictionary):
        tensors["dictionary"] = dictionary
    own = llama_tensors.header(weights) if isinstance(weights, LlamaWeights) else _header(weights)
    header = {**info, "version": FILE_VERSION, **own}
    if tokenizer.splitting != OWN_SPLITTING:
        header["splitting"] = tokenizer.splitting
    text = json.dumps(header, sort_keys=True, ensure_ascii=True)
    return save(tensors, {"llmzip": text})


def _description(data: bytes) -> dict[str, Any]:
    """Return the JSON description of a model file (safetensors: u64 length, JSON header, tensors)."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ModelError("this is not an llmzip model file (llmzip train makes one)")
    if size > MAX_HEADER_BYTES:
        raise ModelError(f"the model file's header is longer than {MAX_HEADER_BYTES} bytes")
    try:
        info: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["llmzip"])
        for key in ("version", "width", "hidden", "layers", "vocab"):
            if not isinstance(info[key], int) or info[key] < 0:
                raise ValueError(key)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError("this is not an llmzip model file (llmzip train makes one)") from error
    found, profile = (info["version"], info.get("profile")), PROFILES.get(info.get("arch", "gated"), PROFILE)
    if found != (FILE_VERSION, profile):
        raise ModelError(
            f"the model is of version {found[0]}, {found[1]}, and this llmzip reads {FILE_VERSION}, {profile} only "
            "(train it again, or use the llmzip that made it)"
        )
    return info


def parse(data: bytes) -> Model:
    """Load a model from the bytes of its file; raises ModelError for anything that is not a sound model."""
    info = _description(data)
    try:
        tensors = load(data)
        return _build(tensors, info, hashlib.sha256(data).digest())
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"the model file is damaged: {error}") from error


def _integers(tensors: dict[str, np.ndarray], name: str, kind: type[np.integer]) -> np.ndarray:
    """Return a tensor that must be a row of integers."""
    if tensors[name].dtype != kind or tensors[name].ndim != 1:
        raise ModelError(f"the model's {name} has the wrong type or shape")
    return tensors[name]


def _weights_from(tensors: dict[str, np.ndarray], info: dict[str, Any]) -> Weights:
    """Return the weights of a network with two softmax levels."""
    width, hidden, vocab, layers = (info[k] for k in ("width", "hidden", "vocab", "layers"))

    def matrix(name: str, rows: int, columns: int) -> Matrix:
        return Matrix(unpack7(tensors[name + ".packed"], (rows, columns)), tensors[name + ".scale"])

    def layer(at: str) -> Any:
        if arch == "gated":
            return LayerWeights(
                token_shift=tensors[at + "token.shift"],
                token_in=matrix(at + "token.in", 3 * width, width),
                forget_bias=tensors[at + "token.forget_bias"],
                token_out=matrix(at + "token.out", width, width),
                channel_shift=tensors[at + "channel.shift"],
                channel_up=matrix(at + "channel.up", hidden, width),
                channel_down=matrix(at + "channel.down", width, hidden),
            )
        from llmzip.network.architectures.registry import LAYERS

        if arch not in LAYERS:
            raise ModelError(f"the model's architecture is not one that this llmzip knows: {arch} (update llmzip)")
        parts: dict[str, Any] = {}
        for part, shape in LAYERS[arch].shapes(width, hidden).items():
            name = at + part.replace("_", ".", 1)
            parts[part] = matrix(name, *shape) if len(shape) == 2 else tensors[name]
        return LAYERS[arch](**parts)

    arch = info.get("arch", "gated")
    built = [layer(f"layers.{i}.") for i in range(layers)]
    starts = _integers(tensors, "head.cluster.starts", np.int32)
    return Weights(
        embedding=matrix("embedding", vocab + 1, width),
        layers=tuple(built),
        head_cluster=matrix("head.cluster", len(starts), width),
        head_token=matrix("head.token", vocab, width),
        cluster_starts=starts,
    )


def _build(tensors: dict[str, np.ndarray], info: dict[str, Any], digest: bytes) -> Model:
    integers = partial(_integers, tensors)
    weights: AnyWeights
    if info.get("arch") == llama_tensors.ARCH:
        integers("head.cluster.starts", np.int32)
        weights = llama_tensors.weights_from(tensors, info)
    else:
        weights = _weights_from(tensors, info)
    vocab = weights.vocab
    offsets = np.cumsum([0, *integers("vocabulary.lengths", np.uint8).tolist()])
    if len(offsets) != vocab + 1:
        raise ModelError("the model's vocabulary has the wrong size")
    blob, ranks = integers("vocabulary.bytes", np.uint8), integers("vocabulary.ranks", np.int32)
    dictionary = integers("dictionary", np.uint16) if "dictionary" in tensors else NO_DICTIONARY
    too_long = len(dictionary) > MOST_DICTIONARY_BYTES  # even if all its tokens are single bytes
    if too_long or (dictionary >= vocab).any() or np.diff(offsets)[dictionary].sum() > MOST_DICTIONARY_BYTES:
        raise ModelError("the model's dictionary holds unknown tokens, or too much text (train it again)")
    tokenizer = Tokenizer.from_arrays(blob, offsets, ranks, info.get("splitting", OWN_SPLITTING))
    return Model(weights, tokenizer, digest, info, InitialState.from_tensors(tensors), dictionary)


def read(path: Path) -> Model:
    """Load a model file."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise ModelError("the model file is larger than 1 GiB")
        return parse(file.read(size))
