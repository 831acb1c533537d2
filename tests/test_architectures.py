"""The other architectures: exact as the gated one is, close to the float network, and whole: train, pack, compress."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from machine_settings import SETTINGS, digests
from networks import random_inputs, tiny_model, tiny_model_file, tiny_weights
from reference_network import pseudo_code
from texts import words

from llmzip.api import stream
from llmzip.errors import HardwareError, ModelError
from llmzip.model.file import dump, parse, read
from llmzip.network.architectures.registry import LAYERS
from llmzip.network.cpu import ExactNetwork
from llmzip.network.head import Prediction
from llmzip.network.torch_device import TorchNetwork
from llmzip.network.weights import Matrix, Weights
from llmzip.tools import selftest
from llmzip.training.build import build
from llmzip.training.export import export, restore
from llmzip.training.request import Request

ARCHITECTURES = sorted(LAYERS)
FIELDS = ("cluster_acc", "hidden", "scale")
STEPS, LANES = 150, 3  # more than the transformer's window


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def weights(request: pytest.FixtureRequest) -> Weights:
    return tiny_weights(arch=request.param)


@pytest.fixture(scope="module")
def inputs(weights: Weights) -> np.ndarray:
    return random_inputs(weights, STEPS, LANES)


def same(a: Prediction, b: Prediction) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


@pytest.mark.parametrize("backend", ["int16", "int8", "float32"])
def test_network_is_the_one_in_the_format_document(backend: str, weights: Weights, inputs: np.ndarray) -> None:
    assert same(ExactNetwork(weights, backend=backend).session(LANES).run(inputs), pseudo_code(weights, inputs))


@pytest.mark.parametrize("shape", [{"width": 14, "hidden": 22}, {"width": 96, "layers": 1}])
def test_widths_with_one_head_and_with_three(shape: dict[str, int], weights: Weights) -> None:
    other = tiny_weights(1, arch=weights.arch, **shape)
    ids = random_inputs(other, 20, 2)
    assert same(ExactNetwork(other).session(2).run(ids), pseudo_code(other, ids))


def test_extreme_weights_stay_in_exact_ranges(weights: Weights) -> None:
    """Scales and vectors at their bounds must give what the pseudo-code gives, and nothing that is no number."""
    rng = np.random.default_rng(0)

    def extreme(part: Matrix | np.ndarray) -> Matrix | np.ndarray:
        if isinstance(part, Matrix):
            scale = np.exp2(rng.choice([-40.0, 20.0, 0.0], len(part.scale))).astype(np.float32)
            return Matrix(rng.choice([-63, 63], part.q.shape).astype(np.int8), scale)
        return rng.choice(np.float32([-1024, 1024, 0, 2.0**-149]), part.shape)

    layers = tuple(type(x)(**{name: extreme(part) for name, part in x.parts().items()}) for x in weights.layers)
    hostile = Weights(weights.embedding, layers, weights.head_cluster, weights.head_token, weights.cluster_starts)
    ids = random_inputs(hostile, 140, 2)
    seen = ExactNetwork(hostile).session(2).run(ids)
    assert same(seen, pseudo_code(hostile, ids))
    assert np.isfinite(seen.scale).all()


@pytest.mark.parametrize("segment", [1, 7, 64])
def test_length_of_a_segment_changes_nothing(segment: int, weights: Weights, inputs: np.ndarray) -> None:
    network = ExactNetwork(weights)
    session = network.session(LANES)
    parts = [session.run(inputs[at : at + segment]) for at in range(0, STEPS, segment)]
    joined = Prediction(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))
    assert same(joined, network.session(LANES).run(inputs))


def test_lanes_are_the_same_together_and_alone(weights: Weights, inputs: np.ndarray) -> None:
    network = ExactNetwork(weights)
    whole = network.session(LANES).run(inputs)
    for lane in range(LANES):
        alone = network.session(1).run(np.ascontiguousarray(inputs[:, lane : lane + 1]))
        assert same(alone, Prediction(*(getattr(whole, name)[:, lane : lane + 1] for name in FIELDS)))


@torch.no_grad()
def test_float_network_is_close_and_its_state_carries_on(weights: Weights, inputs: np.ndarray) -> None:
    model = restore(weights)
    ids = torch.from_numpy(inputs.astype(np.int64))
    hidden, _ = model(ids, model.initial_state(LANES))
    seen = ExactNetwork(weights).session(LANES).run(inputs)
    exact = seen.hidden * seen.scale[..., None]
    assert np.sqrt(np.square(hidden.numpy() - exact).mean()) < 0.06  # rows have root mean square 1
    state, parts = model.initial_state(LANES), []
    for part in (ids[:60], ids[60:61], ids[61:]):
        rows, state = model(part, state)
        parts.append(rows)
    assert torch.allclose(torch.cat(parts), hidden, atol=1e-4)


@torch.no_grad()
def test_text_that_starts_in_mid_stream_knows_nothing_of_the_one_before(weights: Weights, inputs: np.ndarray) -> None:
    model = restore(weights)
    ids = torch.from_numpy(inputs.astype(np.int64))
    ids[40, 1] = model.bos
    first, state = model(ids[:50], model.initial_state(LANES))
    second, _ = model(ids[50:], state)
    alone, _ = model(ids[40:, 1:2], model.initial_state(1))
    assert torch.allclose(torch.cat([first, second])[40:, 1:2], alone, atol=1e-4)


def test_gradients_reach_every_parameter(weights: Weights, inputs: np.ndarray) -> None:
    model = tiny_model(arch=weights.arch)
    hidden, _ = model(torch.from_numpy(inputs[:40].astype(np.int64)), model.initial_state(LANES))
    hidden.square().sum(0).sin().sum().backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("head"):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_model_file_gives_the_weights_back(weights: Weights) -> None:
    data = tiny_model_file(arch=weights.arch)
    model = parse(data)
    assert model.weights.arch == weights.arch == model.info["arch"]
    assert dump(model.weights, model.tokenizer, model.info, model.initial_state) == data
    again = export(restore(model.weights))
    for a, b, c in zip(model.weights.layers, weights.layers, again.layers, strict=True):
        for name, part in a.parts().items():
            if isinstance(part, Matrix):
                assert np.array_equal(part.q, b.parts()[name].q)
                assert np.array_equal(part.scale, b.parts()[name].scale)
                assert np.array_equal(part.q, c.parts()[name].q)
            else:
                assert np.array_equal(part, b.parts()[name])


def test_unknown_and_damaged_architectures_are_refused(weights: Weights) -> None:
    data = tiny_model_file(arch=weights.arch)
    name = f'\\"arch\\": \\"{weights.arch}\\"'.encode()
    assert data.count(name) == 1
    for wrong in ("x" * len(weights.arch), *(arch for arch in ARCHITECTURES if len(arch) == len(weights.arch))):
        if wrong != weights.arch:
            with pytest.raises(ModelError, match=r"know|damaged|wrong shape"):
                parse(data.replace(name, name.replace(weights.arch.encode(), wrong.encode())))
    with pytest.raises(HardwareError, match="CPU only"):
        TorchNetwork(weights, "cpu")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_trained_model_round_trips_and_passes_its_self_test(arch: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(words(5000))
    path = tmp_path / f"{arch}.safetensors"
    build(
        Request((tmp_path / "text",), path, arch=arch, width=32, layers=1, hidden=32, vocab=400, steps=12, quiet=True)
    )
    selftest.verify(read(path))
    text = words(900, 5)
    archive = stream.compress(text, model=str(path))
    assert len(archive) < len(text) / 2
    assert stream.decompress(archive, model=str(path)) == text


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_archives_are_the_same_under_all_cpu_settings(arch: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(tiny_model_file(arch=arch))
    seen = {name: digests(path, 3000, *setting, tmp_path) for name, setting in SETTINGS.items()}
    assert len(set.union(*seen.values())) == 1, seen
