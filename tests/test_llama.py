"""Exact networks of the Llama kind: the same numbers however they are computed, close to those of the float network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from published_models import KINDS, write_folder
from safetensors.numpy import load, save

import llmzip
from llmzip.errors import HardwareError, ModelError
from llmzip.model.file import Model, dump, parse
from llmzip.network.llama import forward
from llmzip.network.llama.forward import LlamaNetwork
from llmzip.network.llama.torch_device import TorchLlama
from llmzip.network.llama.turn import turn, turned_at_once
from llmzip.network.llama.weights import WEIGHT_PEAK, LlamaWeights, Shape
from llmzip.network.matmul_int16 import pair_product
from llmzip.network.packed import KERNELS
from llmzip.pretrained import build, convert
from llmzip.pretrained.reference import Reference
from llmzip.pretrained.source import Source

pytestmark = pytest.mark.usefixtures("one_thread")

SEGMENT = 24  # the window moves on twice in what is run here
STEPS, LANES = 90, 3
BACKENDS = [name for name, kernel in KERNELS.items() if kernel.peak >= WEIGHT_PEAK]


@pytest.fixture(scope="module", params=KINDS)
def published(request, tmp_path_factory) -> tuple[Source, Model]:
    """A random published model and its import."""
    source = build.read(write_folder(tmp_path_factory.mktemp(request.param) / "model", request.param))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "SEGMENT", SEGMENT)
        return source, parse(build.build(source))


def inputs(weights: LlamaWeights, steps: int = STEPS, lanes: int = LANES) -> np.ndarray:
    ids = np.random.default_rng(0).integers(0, weights.vocab, (steps, lanes)).astype(np.int32)
    ids[0] = weights.bos
    return ids


def digest(prediction, vocab: int) -> str:
    arrays = (prediction.frequencies[..., :vocab], prediction.sums, prediction.likeliest)
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def expected(weights: LlamaWeights) -> str:
    return digest(LlamaNetwork(weights, backend="int16").session(LANES).run(inputs(weights)), weights.vocab)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recheck", [False, True])
def test_backends_agree(published, backend: str, recheck: bool) -> None:
    weights = published[1].weights
    session = LlamaNetwork(weights, backend=backend).session(LANES, recheck=recheck)
    assert digest(session.run(inputs(weights)), weights.vocab) == expected(weights)


def test_the_torch_path_agrees(published) -> None:
    weights = published[1].weights
    assert digest(TorchLlama(weights, "cpu").session(LANES).run(inputs(weights)), weights.vocab) == expected(weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_torch_path_agrees_on_cuda(published) -> None:
    weights = published[1].weights
    assert digest(TorchLlama(weights, "cuda").session(LANES).run(inputs(weights)), weights.vocab) == expected(weights)


@pytest.mark.parametrize("network", [lambda w: LlamaNetwork(w), lambda w: TorchLlama(w, "cpu")])
@pytest.mark.parametrize("steps", [1, 7, 17, 64])
def test_steps_give_what_stretches_give(published, network, steps: int) -> None:
    weights = published[1].weights
    ids = inputs(weights)
    whole = network(weights).session(LANES).run(ids)
    session = network(weights).session(LANES)
    for at in range(0, STEPS, steps):
        part = session.run(ids[at : at + steps])
        assert np.array_equal(part.frequencies, whole.frequencies[at : at + steps])
        assert np.array_equal(part.sums, whole.sums[at : at + steps])


def test_lanes_do_not_see_each_other(published) -> None:
    weights = published[1].weights
    network, ids = LlamaNetwork(weights), inputs(weights)
    together = network.session(LANES).run(ids)
    for lane in range(LANES):
        alone = network.session(1).run(ids[:, lane : lane + 1])
        assert np.array_equal(alone.frequencies[:, 0], together.frequencies[:, lane])


def test_the_text_before_the_window_is_forgotten_but_for_its_beginning(published) -> None:
    weights = published[1].weights
    network, ids = LlamaNetwork(weights), inputs(weights, 4 * SEGMENT, 1)

    def last(changed: int) -> np.ndarray:
        other = ids.copy()
        other[changed] = (other[changed] + 1) % weights.vocab
        return network.session(1).run(other)[0][-1]

    now = network.session(1).run(ids)[0][-1]
    assert not np.array_equal(now, last(5))  # one of those that stay
    assert not np.array_equal(now, last(len(ids) - 2))


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import numpy as np
from llmzip.model.file import parse
from llmzip.network.llama.forward import LlamaNetwork
from test_llama import digest, inputs
weights = parse(Path(sys.argv[1]).read_bytes()).weights
print(digest(LlamaNetwork(weights).session(2).run(inputs(weights, 60, 2)), weights.vocab))
"""


def test_python_without_the_compiler_agrees(tmp_path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "SEGMENT", SEGMENT)
        data = build.build(build.read(write_folder(tmp_path / "model")))
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(llmzip.__file__).parents[1])}
    command = [sys.executable, "-c", SCRIPT, str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    weights = parse(data).weights
    found = digest(LlamaNetwork(weights).session(2).run(inputs(weights, 60, 2)), weights.vocab)
    assert done.stdout.strip() == found


def log_probabilities(published, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return those of the exact network, the published rows of its tokens, and the inputs as rows, lane by lane."""
    source, model = published
    _, rows, _ = convert.vocabulary(source)
    found = LlamaNetwork(model.weights).session(ids.shape[1]).run(ids).frequencies[..., : model.weights.vocab]
    logs = np.log(found / found.sum(-1, keepdims=True)).transpose(1, 0, 2)
    known = np.append(rows, source.start)
    # A token that the source lacks looks like that of the last byte of U+FFFD.
    unknown = next(row for row, token in enumerate(source.tokens) if token == b"\xbd")
    return logs, rows, np.where(known[ids] >= 0, known[ids], unknown).T


def close(exact: np.ndarray, floating: np.ndarray) -> bool:
    """Return whether log probabilities agree as well as 8 bits allow, in the mean over the floating ones."""
    return bool((np.exp(floating) * np.abs(exact - floating)).sum(-1).mean() < 0.05)


def test_predictions_are_those_of_transformers(published, tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    source, model = published
    kind = "qwen2" if source.biased else "llama" if source.tied else "untied"
    network = transformers.AutoModelForCausalLM.from_pretrained(write_folder(tmp_path / "m", kind), dtype=torch.float32)
    ids = inputs(model.weights, SEGMENT, LANES)
    exact, rows, as_rows = log_probabilities(published, ids)
    with torch.inference_mode():
        floating = network(torch.from_numpy(as_rows.astype(np.int64))).logits.log_softmax(-1).numpy()
    reference = Reference(source, SEGMENT).logits(torch.from_numpy(as_rows.astype(np.int64))).log_softmax(-1).numpy()
    assert np.abs(reference - floating).max() < 1e-3
    known = rows >= 0
    assert close(exact[..., known], floating[..., rows[known]])


def test_closeness_is_seen_to_fail(published, monkeypatch) -> None:
    """With another rotary base, predictions are no longer those of the float network."""
    source, model = published
    monkeypatch.setattr(convert, "SEGMENT", SEGMENT)
    wrong = parse(build.build(replace(source, rotary_base=3.0)))
    ids = inputs(model.weights, SEGMENT, LANES)
    exact, rows, as_rows = log_probabilities((source, wrong), ids)
    floating = Reference(source, SEGMENT).logits(torch.from_numpy(as_rows.astype(np.int64))).log_softmax(-1).numpy()
    assert not close(exact[..., rows >= 0], floating[..., rows[rows >= 0]])


def test_recheck_finds_a_wrong_product(published, monkeypatch) -> None:
    weights = published[1].weights

    def damaged(q, packed, acc):
        pair_product(q, packed, acc)
        acc[:] += 1

    monkeypatch.setattr(forward, "packed_product", damaged)
    session = LlamaNetwork(weights, backend="int16").session(1, recheck=True)
    for name in ("product", "mix_tokens", "mix_channels", "forward"):
        kernel = getattr(forward, name)
        monkeypatch.setattr(forward, name, getattr(kernel, "py_func", kernel))
    with pytest.raises(HardwareError, match="two different matrix products"):
        session.run(inputs(weights, 2, 1))


def test_turns_are_their_own_inverse_but_for_a_factor() -> None:
    rng = np.random.default_rng(0)
    for width in (64, 96, 576, 1536, 48, 6):
        size = turned_at_once(width)
        row = rng.standard_normal(width).astype(np.float32)
        twice = row.copy()
        turn(twice, size)
        assert not np.allclose(twice, row)
        assert np.allclose(twice, convert.turned(row[None])[0] * np.sqrt(size), atol=1e-4)
        turn(twice, size)
        assert np.allclose(twice, row * size, rtol=1e-4, atol=1e-3)


def test_a_turn_spreads_what_sticks_out() -> None:
    row = np.zeros(576, np.float32)
    row[7] = 64.0
    turn(row, 64)
    assert np.count_nonzero(row) == 64
    assert set(np.abs(row[row != 0]).tolist()) == {64.0}


@pytest.mark.parametrize(
    ("part", "wrong", "message"),
    [
        ("embedding.scale", lambda t: t * np.nan, "scales out of range"),
        ("layers.0.mlp.out.integers", lambda t: np.full_like(t, -128), "beyond 127"),
        ("layers.0.attention.in.integers", lambda t: t[:, :-2], "shape"),
        ("layers.1.attention.bias", lambda t: t + np.inf, "not finite"),
        ("rotations.cosines", lambda t: t[:-1], "shape"),
        ("absent", lambda t: t + 100_000, "absent"),
        ("norm", lambda t: t * np.inf, "not finite"),
    ],
)
def test_unsound_models_are_refused(published, part: str, wrong, message: str) -> None:
    model = published[1]
    data = dump(model.weights, model.tokenizer, {}, model.initial_state)
    tensors = load(data)
    tensors[part] = np.ascontiguousarray(wrong(tensors[part]))
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])["__metadata__"]
    with pytest.raises(ModelError, match=message):
        parse(save(tensors, header))


@pytest.mark.parametrize(
    "wrong",
    [
        {"segment": 1016},
        {"segment": 12},
        {"head_width": 2048},
        {"head_width": 24},
        {"kv_heads": 3},
        {"hidden": 32768},
        {"width": 0},
        {"hidden": 33},
    ],
)
def test_sizes_whose_sums_could_overflow_are_refused(wrong: dict[str, int]) -> None:
    sizes = {"width": 64, "heads": 4, "kv_heads": 2, "head_width": 16, "hidden": 96, "segment": 1008}
    Shape(**sizes)
    with pytest.raises(ModelError, match="not supported"):
        Shape(**(sizes | wrong))
