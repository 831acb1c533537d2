"""The exact network: the same bits from every backend, segment, batch, device, setting and implementation."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import hostile_weights, random_inputs, tiny_model, tiny_model_file, tiny_weights
from reference_network import pseudo_code

import llmzip
from llmzip.errors import HardwareError
from llmzip.model.file import parse
from llmzip.network import fused, matmul
from llmzip.network.cpu import ExactNetwork
from llmzip.network.head import Prediction
from llmzip.network.heads import join
from llmzip.network.matmul import BINDERS
from llmzip.network.matmul_int16 import pack_pairs, pair_product
from llmzip.network.packed import KERNELS
from llmzip.network.torch_device import TorchNetwork
from llmzip.network.weights import Matrix, Weights
from llmzip.training.export import LOGIT_UNIT

STEPS, LANES = 40, 5
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")),
]
KINDS = {
    "tiny": lambda: tiny_weights(),
    "narrow and odd": lambda: tiny_weights(1, width=14, layers=1, hidden=22, clusters=5),
    "one cluster": lambda: tiny_weights(2, clusters=1),
    "hostile": lambda: hostile_weights(0),
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights() -> Weights:
    return tiny_weights()


@pytest.fixture(scope="module")
def inputs(weights: Weights) -> np.ndarray:
    ids = random_inputs(weights, STEPS, LANES)
    ids[17, 2] = weights.bos
    return ids


@pytest.fixture(scope="module")
def expected(weights: Weights, inputs: np.ndarray) -> Prediction:
    return ExactNetwork(weights, backend="int16").session(LANES).run(inputs)


def assert_equal(got: Prediction, expected: Prediction) -> None:
    assert (got.cluster_acc.dtype, got.hidden.dtype, got.scale.dtype) == (np.int32, np.int16, np.float32)
    assert np.array_equal(got.cluster_acc, expected.cluster_acc)
    assert np.array_equal(got.hidden, expected.hidden)
    assert np.array_equal(got.scale.view(np.int32), expected.scale.view(np.int32))


def part(whole: Prediction, steps: slice, lanes: slice) -> Prediction:
    return Prediction(*(a[steps, lanes] for a in (whole.cluster_acc, whole.hidden, whole.scale)))


def in_segments(network: ExactNetwork | TorchNetwork, ids: np.ndarray, steps: int) -> Prediction:
    session = network.session(ids.shape[1])
    parts = [session.run(ids[at : at + steps]) for at in range(0, len(ids), steps)]
    return Prediction(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("cluster_acc", "hidden", "scale"))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_network_is_the_one_in_the_format_document(kind: str) -> None:
    weights = KINDS[kind]()
    ids = random_inputs(weights, STEPS, LANES)
    assert_equal(ExactNetwork(weights).session(LANES).run(ids), pseudo_code(weights, ids))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_torch_runs_the_same_network(kind: str, device: str) -> None:
    weights = KINDS[kind]()
    ids = random_inputs(weights, STEPS, LANES)
    expected = ExactNetwork(weights).session(LANES).run(ids)
    network = TorchNetwork(weights, device)
    assert_equal(network.session(LANES).run(ids), expected)
    assert_equal(in_segments(network, ids[:9], 1), part(expected, slice(9), slice(None)))


@pytest.mark.parametrize("name", BINDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_backends_give_the_same_bits(kind: str, name: str) -> None:
    weights = KINDS[kind]()
    ids = random_inputs(weights, STEPS, LANES)
    if kind == "narrow and odd" and name in KERNELS and name != "int16":
        with pytest.raises(ValueError, match=f"widths do not fit the {name} backend"):
            ExactNetwork(weights, backend=name)
        return
    expected = pseudo_code(weights, ids)
    network = ExactNetwork(weights, backend=name)
    assert network.backend == name
    assert_equal(network.session(LANES).run(ids), expected)
    assert_equal(network.session(LANES, recheck=True).run(ids), expected)
    assert_equal(in_segments(network, ids[:9], 1), part(expected, slice(9), slice(None)))


@pytest.mark.parametrize("steps", [1, 7, 39, STEPS])
def test_length_of_a_segment_changes_nothing(
    steps: int, weights: Weights, inputs: np.ndarray, expected: Prediction
) -> None:
    assert_equal(in_segments(ExactNetwork(weights), inputs, steps), expected)


def test_lanes_are_the_same_together_and_alone(weights: Weights, inputs: np.ndarray, expected: Prediction) -> None:
    network = ExactNetwork(weights)
    for groups in ([1] * LANES, [2, 3], [4, 1]):
        bounds = np.cumsum([0, *groups])
        runs = [network.session(b - a).run(np.ascontiguousarray(inputs[:, a:b])) for a, b in pairwise(bounds)]
        assert_equal(join(runs), expected)


def test_lane_does_not_depend_on_its_neighbours(weights: Weights, inputs: np.ndarray, expected: Prediction) -> None:
    others = random_inputs(weights, STEPS, LANES, seed=9)
    others[:, 3] = inputs[:, 3]
    got = ExactNetwork(weights).session(LANES).run(others)
    lane = slice(3, 4)
    assert_equal(part(got, slice(None), lane), part(expected, slice(None), lane))
    assert not np.array_equal(got.hidden[:, 2], expected.hidden[:, 2])


def test_sessions_share_nothing(weights: Weights, inputs: np.ndarray, expected: Prediction) -> None:
    network = ExactNetwork(weights)
    first, second = network.session(LANES), network.session(LANES)
    first.run(random_inputs(weights, 11, LANES, seed=4))
    assert_equal(second.run(inputs), expected)


def test_a_prediction_is_not_overwritten_by_the_next_run(weights: Weights, inputs: np.ndarray) -> None:
    session = ExactNetwork(weights).session(LANES)
    first = session.run(inputs[:1])
    copies = [a.copy() for a in (first.cluster_acc, first.hidden, first.scale)]
    session.run(inputs[1:2])
    assert_equal(first, Prediction(*copies))


def test_the_past_matters(weights: Weights, inputs: np.ndarray, expected: Prediction) -> None:
    # Else the tests above would pass for a network that ignores its state.
    changed = inputs.copy()
    changed[1] = (changed[1] + 1) % weights.vocab
    got = ExactNetwork(weights).session(LANES).run(changed)
    assert np.array_equal(got.hidden[0], expected.hidden[0])
    for step in range(1, 12):
        assert (got.hidden[step] != expected.hidden[step]).any(-1).all()


@pytest.mark.parametrize("seed", range(6))
def test_hostile_weights_stay_within_bounds(seed: int) -> None:
    weights = hostile_weights(seed)
    ids = random_inputs(weights, 60, 3, seed)
    got = ExactNetwork(weights).session(3).run(ids)
    assert np.abs(got.hidden).max() <= 2032
    assert np.isfinite(got.scale).all()
    assert (got.scale > 0).all()
    assert_equal(TorchNetwork(weights, "cpu").session(3).run(ids), got)


def dequantised(matrix: Matrix) -> torch.Tensor:
    return torch.from_numpy(matrix.q.astype(np.float32) * matrix.scale[:, None])


@torch.no_grad()
def test_exact_network_is_close_to_the_float_network() -> None:
    model = tiny_model(5, width=64, layers=3, hidden=128)
    weights = tiny_weights(5, width=64, layers=3, hidden=128)
    ids = random_inputs(weights, 60, 4)
    got = ExactNetwork(weights).session(4).run(ids)
    logits = got.cluster_acc.astype(np.float64) * got.scale[..., None] * weights.head_cluster.scale

    def relative_error(model) -> float:
        hidden, _ = model(torch.from_numpy(ids.astype(np.int64)), model.initial_state(4))
        wanted = (hidden.double() @ model.head_cluster.double().t()).numpy() * LOGIT_UNIT
        return math.sqrt(np.square(logits - wanted).mean() / np.square(wanted).mean())

    assert relative_error(model) < 0.06
    # With the weights of the exact network only the activations' rounding is left.
    model.embedding.weight.copy_(dequantised(weights.embedding))
    model.head_cluster.copy_(dequantised(weights.head_cluster) / LOGIT_UNIT)
    mixers = zip(model.token_mixers, model.channel_mixers, weights.layers, strict=True)
    for token, channel, layer in mixers:
        token.w_in.weight.copy_(dequantised(layer.token_in))
        token.w_out.weight.copy_(dequantised(layer.token_out))
        channel.w_up.weight.copy_(dequantised(layer.channel_up))
        channel.w_down.weight.copy_(dequantised(layer.channel_down))
    assert relative_error(model) < 0.03


def test_recheck_finds_a_broken_machine(weights: Weights, inputs: np.ndarray, monkeypatch) -> None:
    def flipping(weight: np.ndarray) -> matmul.Product:
        right = matmul.bind_float32(weight)

        def product(q: np.ndarray, acc: np.ndarray) -> None:
            right(q, acc)
            acc[:, -1] ^= 1 << 9

        return product

    monkeypatch.setitem(BINDERS, "float32", flipping)
    network = ExactNetwork(weights, backend="float32")
    network.session(LANES).run(inputs)
    with pytest.raises(HardwareError, match="two different matrix products"):
        network.session(LANES, recheck=True).run(inputs)


@pytest.mark.parametrize("wrong_row", [None, 0, 5, 39])
def test_fused_product_rechecks_every_row_in_turn(wrong_row: int | None, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-63, 64, (30, 14)).astype(np.int8)
    q = rng.integers(-127, 128, (40, 14)).astype(np.int16)
    acc, counts = np.empty((40, 32), np.int32), np.zeros(3, np.int64)

    def damaging(q: np.ndarray, packed: np.ndarray, acc: np.ndarray) -> None:
        pair_product(q, packed, acc)
        if wrong_row is not None:
            acc[wrong_row, 29] += 1

    monkeypatch.setattr(fused, "packed_product", damaging)
    for _ in range(128):
        fused.rechecked_product.py_func(q, pack_pairs(weight), weight, acc, counts)
    assert counts.tolist() == [0, 40, 0 if wrong_row is None else 1]


def test_fused_session_rechecks_and_raises(weights: Weights, inputs: np.ndarray) -> None:
    network = ExactNetwork(weights, backend="int16")
    session = network.session(LANES, recheck=True)
    session.run(inputs)
    products = 4 * len(weights.layers) + 2  # the head reads rows of two parts
    assert session._counts.tolist() == [products * inputs.size % 128, products * inputs.size // 128, 0]
    session._counts[2] = 1
    with pytest.raises(HardwareError, match="two different matrix products"):
        session.run(inputs)


@pytest.mark.parametrize("kind", [ExactNetwork, lambda weights: TorchNetwork(weights, "cpu")])
def test_networks_refuse_a_thread_that_flushes_denormals(kind, weights: Weights, inputs: np.ndarray) -> None:
    session = kind(weights).session(LANES)
    session.run(inputs)
    raised = []

    def run() -> None:
        if not torch.set_flush_denormal(True):
            raised.append(None)
            return
        try:
            session.run(inputs)
        except HardwareError as error:
            raised.append(error)
        finally:
            torch.set_flush_denormal(False)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised == [None]:
        pytest.skip("this CPU cannot flush denormals")
    assert len(raised) == 1
    assert "flush denormal" in str(raised[0])


def test_torch_network_refuses_reduced_precision(weights: Weights) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(HardwareError, match="full precision"):
            TorchNetwork(weights, "cpu")
    finally:
        torch.set_float32_matmul_precision(before)


PROGRAM = """
import hashlib
import sys

import numpy as np

from llmzip.network.cpu import ExactNetwork

from llmzip.model.file import parse

model, inputs, threads, backends = sys.argv[1:]
weights, ids = parse(open(model, "rb").read()).weights, np.load(inputs)


def report(name, network):
    session = network.session(ids.shape[1], recheck=True)
    segment = len(ids) // 3
    seen = [session.run(ids[at : at + segment]) for at in range(0, len(ids), segment)]
    digest = hashlib.sha256()
    for part in ("hidden", "scale", "cluster_acc"):
        digest.update(np.concatenate([getattr(s, part) for s in seen]).tobytes())
    print(name, digest.hexdigest())


for count in map(int, threads.split()):
    if count:
        import torch

        from llmzip.network.torch_device import TorchNetwork

        torch.set_num_threads(count)
        report(f"torch-{count}", TorchNetwork(weights, "cpu"))
    for backend in backends.split():
        report(f"{backend}-{count}", ExactNetwork(weights, backend=backend))
assert count or "torch" not in sys.modules
"""

# (settings, torch threads (0: without torch), backends, steps): one process each
MATRIX = {
    "default": ({}, "1 2", " ".join([*KERNELS, "int8", "float32"]), STEPS),
    "sse": (
        {
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "ATEN_CPU_CAPABILITY": "default",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        },
        "2",
        "int8 float32",
        STEPS,
    ),
    "avx2": ({"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}, "2", "int8 float32", STEPS),
    "generic numba": ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, "0", "int16", STEPS),
    "no numba": ({"NUMBA_DISABLE_JIT": "1"}, "1", "float32", 3),
}


@pytest.mark.parametrize("settings", MATRIX)
def test_settings_of_the_libraries_change_nothing(settings: str, tmp_path: Path) -> None:
    variables, threads, names, steps = MATRIX[settings]
    # Large enough for torch to use its threads, except where plain Python has to run it.
    shape = {"width": 64, "hidden": 128} if steps == STEPS else {}
    lanes = 13 if steps == STEPS else 2
    data = tiny_model_file(0, **shape)
    weights = parse(data).weights
    ids = random_inputs(weights, steps, lanes)
    (tmp_path / "model.safetensors").write_bytes(data)
    np.save(tmp_path / "inputs.npy", ids)
    seen = pseudo_code(weights, ids)
    digest = hashlib.sha256(seen.hidden.tobytes() + seen.scale.tobytes() + seen.cluster_acc.tobytes())

    source = str(Path(llmzip.__file__).parents[1])
    files = [str(tmp_path / name) for name in ("model.safetensors", "inputs.npy")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *files, threads, names],
        env={**os.environ, "PYTHONPATH": source, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = dict(line.split() for line in done.stdout.splitlines())
    wanted = [f"torch-{n}" for n in threads.split() if n != "0"]
    wanted += [f"{name}-{n}" for n in threads.split() for name in names.split()]
    assert lines == dict.fromkeys(wanted, digest.hexdigest())
