"""Model files: what is dumped is parsed, the same bytes every time, and nothing else is let in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from networks import tiny_model_file, tiny_tokenizer, tiny_weights
from safetensors.numpy import load, save

import llmzip
from llmzip.errors import ModelError
from llmzip.model import file as modelfile
from llmzip.model.file import dump, pack7, parse, read, unpack7
from llmzip.network.weights import Weights

SHAPE = {"width": 8, "hidden": 16, "layers": 1, "clusters": 4}
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def data() -> bytes:
    return tiny_model_file(0, **SHAPE)


def header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def opened(data: bytes) -> tuple[Tensors, dict[str, Any]]:
    header = json.loads(data[8 : header_end(data)])
    return load(data), json.loads(header["__metadata__"]["llmzip"])


def arrays(weights: Weights) -> list[np.ndarray]:
    matrices = [weights.embedding, weights.head_cluster, weights.head_token]
    vectors = [weights.cluster_starts]
    for layer in weights.layers:
        matrices += layer.matrices()
        vectors += [layer.token_shift, layer.forget_bias, layer.channel_shift]
    return [part for m in matrices for part in (m.q, m.scale)] + vectors


@given(st_numpy.arrays(np.int8, st_numpy.array_shapes(max_dims=3, max_side=9), elements=st.integers(-64, 63)))
def test_packing_7_bits_is_undone(q: np.ndarray) -> None:
    packed = pack7(q)
    assert packed.dtype == np.uint8
    assert packed.size == -(-q.size // 8) * 7
    unpacked = unpack7(packed, q.shape)
    assert unpacked.dtype == np.int8
    assert np.array_equal(unpacked, q)


def test_packed_weights_lie_as_the_format_says() -> None:
    # value + 64 in 7 bits each, the first one lowest, little-endian
    values = [-63, 63, 0, 1, -1, 40, -40, 7]
    word = sum((value + 64) << (7 * i) for i, value in enumerate(values))
    assert pack7(np.array(values, np.int8)).tobytes() == word.to_bytes(7, "little")


@pytest.mark.parametrize("size", [0, 13, 15, 21])
def test_packed_weights_of_the_wrong_size_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="packed"):
        unpack7(np.zeros(size, np.uint8), (2, 5))


@pytest.mark.parametrize("shape", [SHAPE, {}, {"width": 14, "hidden": 22, "clusters": 1}])
def test_parse_undoes_dump(shape: dict[str, int]) -> None:
    weights, tokenizer = tiny_weights(7, **shape), tiny_tokenizer()
    data = dump(weights, tokenizer, {"name": "x", "training": {"steps": 5}})
    model = parse(data)
    for got, expected in zip(arrays(model.weights), arrays(weights), strict=True):
        assert got.dtype == expected.dtype
        assert np.array_equal(got, expected)
    assert model.tokenizer.tokens == tokenizer.tokens
    assert np.array_equal(model.tokenizer.ranks, tokenizer.ranks)
    assert model.digest == hashlib.sha256(data).digest()
    assert model.info["name"] == "x"
    assert model.info["training"] == {"steps": 5}


def with_dictionary(tokens: list[int], seed: int = 0) -> bytes:
    return dump(tiny_weights(seed, **SHAPE), tiny_tokenizer(), {}, dictionary=np.array(tokens, np.uint16))


def test_a_dictionary_is_kept() -> None:
    tokens = [*range(tiny_tokenizer().size), 5, 5]
    assert parse(with_dictionary(tokens)).dictionary.tolist() == tokens
    assert parse(with_dictionary([])).dictionary.tolist() == []
    assert "dictionary" not in load(with_dictionary([]))


def test_unsound_dictionaries_are_refused(monkeypatch) -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(ModelError, match="unknown tokens"):
        parse(with_dictionary([0, tokenizer.size]))
    tokens = [tokenizer.tokens.index(b" the")] * 5
    monkeypatch.setattr(modelfile, "MOST_DICTIONARY_BYTES", 20)
    assert len(parse(with_dictionary(tokens)).dictionary) == 5
    monkeypatch.setattr(modelfile, "MOST_DICTIONARY_BYTES", 19)
    with pytest.raises(ModelError, match="too much text"):
        parse(with_dictionary(tokens))
    tensors, info = opened(with_dictionary(tokens))
    for wrong in (tensors["dictionary"].astype(np.int16), tensors["dictionary"][None]):
        with pytest.raises(ModelError, match="dictionary has the wrong type or shape"):
            parse(save({**tensors, "dictionary": wrong}, {"llmzip": json.dumps(info)}))


AGAIN = """
import sys
from llmzip.model.file import dump, parse
model = parse(open(sys.argv[1], "rb").read())
info = dict(sorted(model.info.items(), reverse=True))
sys.stdout.buffer.write(dump(model.weights, model.tokenizer, info))
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("seed", ["1", "2"])
def test_dump_writes_the_same_bytes_in_every_process(seed: str, data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(data)
    source = str(Path(llmzip.__file__).parents[1])
    variables = {**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", AGAIN, str(file)]
    done = subprocess.run(command, env=variables, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data


def replaced(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensors, dict], None]:
    def apply(tensors: Tensors, _: dict) -> None:
        tensors[name] = np.ascontiguousarray(change(tensors[name]))

    return apply


def first_is(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(tensor: np.ndarray) -> np.ndarray:
        tensor = tensor.copy()
        tensor.flat[0] = value
        return tensor

    return change


def described(**values: Any) -> Callable[[Tensors, dict], None]:
    return lambda _, info: info.update(values)


def without(name: str) -> Callable[[Tensors, dict], None]:
    return lambda tensors, info: (tensors.pop(name, None), info.pop(name, None))


def no_vocabulary(tensors: Tensors, info: dict) -> None:
    info["vocab"] = 0
    for name in ("head.token.packed", "head.token.scale"):
        tensors[name] = tensors[name][:0]
    for name in ("vocabulary.bytes", "vocabulary.lengths", "vocabulary.ranks"):
        tensors[name] = tensors[name][:0]
    tensors["embedding.packed"] = tensors["embedding.packed"][:7]
    tensors["embedding.scale"] = tensors["embedding.scale"][:1]


SCALES = "layers.0.token.in.scale"
REFUSED = {
    "a scale that is not a number": (replaced(SCALES, first_is(np.nan)), "scales out of range"),
    "an infinite scale": (replaced("head.token.scale", first_is(np.inf)), "scales out of range"),
    "a negative scale": (replaced("embedding.scale", first_is(-1.0)), "scales out of range"),
    "a scale of zero": (replaced("head.cluster.scale", first_is(0.0)), "scales out of range"),
    "too small a scale": (replaced(SCALES, first_is(2.0**-41)), "scales out of range"),
    "too large a scale": (replaced(SCALES, first_is(2.0**20 + 1)), "scales out of range"),
    # Seven zero bytes are eight weights of -64.
    "weights beyond 63": (
        replaced("layers.0.channel.up.packed", lambda t: np.where(np.arange(t.size) < 7, 0, t).astype(np.uint8)),
        "beyond 63",
    ),
    "a vector entry that is not a number": (
        replaced("layers.0.token.shift", first_is(np.nan)),
        "not finite and bounded",
    ),
    "a vector entry too large": (
        replaced("layers.0.token.forget_bias", first_is(1025.0)),
        "not finite and bounded",
    ),
    "a vector of another type": (
        replaced("layers.0.channel.shift", lambda t: t.astype(np.float64)),
        "wrong shape or type",
    ),
    "a vector too short": (replaced("layers.0.channel.shift", lambda t: t[1:]), "wrong shape or type"),
    "scales of another type": (replaced(SCALES, lambda t: t.astype(np.float64)), "wrong type"),
    "too few scales": (replaced(SCALES, lambda t: t[1:]), "wrong shape"),
    "too few weights": (replaced("head.token.packed", lambda t: t[7:]), "damaged"),
    "unpacked weights": (replaced("head.token.packed", lambda t: t.astype(np.int64)), "damaged"),
    "other cluster starts": (
        replaced("head.cluster.starts", lambda t: t.astype(np.float32)),
        "starts has the wrong type",
    ),
    "too many clusters": (replaced("head.cluster.starts", lambda t: np.append(t, t)), "damaged"),
    "a missing matrix": (without("layers.0.token.out.packed"), "damaged"),
    "a missing vector": (without("layers.0.token.shift"), "damaged"),
    "a missing vocabulary": (without("vocabulary.lengths"), "damaged"),
    "an empty vocabulary": (no_vocabulary, "damaged"),
    "a vocabulary without a byte": (replaced("vocabulary.bytes", first_is(1)), "damaged"),
    "a vocabulary that ends early": (replaced("vocabulary.bytes", lambda t: t[:-1]), "damaged"),
    "an empty token": (replaced("vocabulary.lengths", first_is(0)), "damaged"),
    "too few ranks": (replaced("vocabulary.ranks", lambda t: t[1:]), "damaged"),
    "ranks of another type": (
        replaced("vocabulary.ranks", lambda t: t.astype(np.float64)),
        "ranks has the wrong type",
    ),
    "another version": (described(version=1), "version 1, exact-2, and this llmzip reads 0, exact-2 only"),
    "another profile": (described(profile="exact-1"), "version 0, exact-1, and .* only .train it again"),
    "no version": (without("version"), "not an llmzip model file"),
    "a negative width": (described(width=-8), "not an llmzip model file"),
    "a width that is text": (described(width="8"), "not an llmzip model file"),
    "no width": (described(width=0), "damaged"),
    "a monstrous width": (described(width=10**30), "damaged"),
    "monstrously many layers": (described(layers=10**30), "damaged"),
    "no layers": (described(layers=0), "no layers"),
    "a monstrous vocabulary": (described(vocab=1 << 62), "damaged"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_unsound_models_are_refused(what: str, data: bytes) -> None:
    damage, message = REFUSED[what]
    tensors, info = opened(data)
    damage(tensors, info)
    with pytest.raises(ModelError, match=message):
        parse(save(tensors, {"llmzip": json.dumps(info)}))


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ModelError, match="width 15 or hidden width 16 is not supported"):
        tiny_weights(0, width=15, hidden=16)


@pytest.mark.parametrize(
    "text", [b"", b"1234567", b"\0" * 8, b"\0" * 100, b"\xff" * 64, b"{}", b"\2" + b"\0" * 7 + b"{}"]
)
def test_files_that_are_no_models_are_refused(text: bytes) -> None:
    with pytest.raises(ModelError, match="not an llmzip model file"):
        parse(text)


def test_safetensors_of_others_are_refused() -> None:
    with pytest.raises(ModelError, match="not an llmzip model file"):
        parse(save({"weight": np.zeros(3, np.float32)}, {"format": "pt"}))
    with pytest.raises(ModelError, match="not an llmzip model file"):
        parse(save({"weight": np.zeros(3, np.float32)}))


@pytest.mark.parametrize("size", [0, 1, 7, 1 << 20, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_hostile_header_lengths_are_refused(size: int, data: bytes) -> None:
    with pytest.raises(ModelError):
        parse(size.to_bytes(8, "little") + data[8:])


@pytest.mark.parametrize(
    "header",
    [
        b'{"__metadata__":' * 5000,
        b"[" * 100_000,
        b'{"__metadata__":{"llmzip":"' + b"[" * 50_000 + b'"}}',
        b'{"__metadata__":{"llmzip":"[]"}}',
        b'{"__metadata__":{"llmzip":"{\\"version\\":' + b"9" * 10_000 + b'}"}}',
        b'{"__metadata__":[]}',
        b"\xff\xfe",
    ],
)
def test_hostile_headers_are_refused(header: bytes) -> None:
    with pytest.raises(ModelError, match="not an llmzip model file"):
        parse(len(header).to_bytes(8, "little") + header)


def test_truncated_files_are_refused(data: bytes) -> None:
    for size in [
        *range(0, header_end(data) + 20, 97),
        *range(header_end(data), len(data), 499),
        len(data) - 1,
    ]:
        with pytest.raises(ModelError):
            parse(data[:size])


def test_files_with_something_behind_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        parse(data + b"\0")


def test_damage_to_the_header_gives_model_errors_only(data: bytes) -> None:
    rng = random.Random(0)
    refused = 300
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 20])):
            damaged[rng.randrange(header_end(data))] = rng.randrange(256)
        with contextlib.suppress(ModelError):
            parse(bytes(damaged))
            refused -= 1
    assert refused > 250  # the rest hit the name


def test_damage_to_the_tensors_gives_model_errors_only(data: bytes) -> None:
    rng = random.Random(1)
    for _ in range(100):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 20])):
            damaged[rng.randrange(header_end(data), len(data))] = rng.randrange(256)
        with contextlib.suppress(ModelError):
            parse(bytes(damaged))


def test_read_takes_a_file_and_refuses_a_huge_one_unread(data: bytes, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(data)
    assert read(file).digest == hashlib.sha256(data).digest()
    monkeypatch.setattr(modelfile, "MAX_FILE_BYTES", len(data) - 1)
    with pytest.raises(ModelError, match="larger than"):
        read(file)


def test_a_header_of_megabytes_is_not_parsed() -> None:
    header = b'{"__metadata__": {"llmzip": "' + b"[" * (1 << 20) + b'"}}'
    data = len(header).to_bytes(8, "little") + header
    tracemalloc.start()
    with pytest.raises(ModelError, match="header is longer than"):
        parse(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 16
