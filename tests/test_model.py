"""The float network: its recurrence, its state, BOS, and what it starts as."""

from __future__ import annotations

import math

import pytest
import torch
from networks import tiny_model

from llmzip.training.model import LanguageModel, ModelConfig, Recurrence, SquaredReluMLP, algebraic_sigmoid, normalise

STEPS, LANES = 12, 3


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model()


def ids(model: LanguageModel, seed: int = 0, steps: int = STEPS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.config.vocab, (steps, LANES), generator=generator)


def plain_recurrence(f: torch.Tensor, u: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    states = []
    for t in range(len(f)):
        h = f[t] * h + u[t]
        states.append(h)
    return torch.stack(states)


def random_recurrence() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    f = torch.rand(5, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    u = torch.randn(5, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    return f, u, torch.randn(2, 3, generator=generator, dtype=torch.float64)


def test_recurrence_and_its_gradients_are_those_of_a_loop() -> None:
    f, u, h0 = random_recurrence()
    weight = torch.arange(30, dtype=torch.float64).view(5, 2, 3).sin()
    h = Recurrence.apply(f, u, h0)
    expected = plain_recurrence(f, u, h0)
    assert torch.allclose(h, expected, rtol=1e-12)
    got = torch.autograd.grad((h * weight).sum(), (f, u))
    wanted = torch.autograd.grad((expected * weight).sum(), (f, u))
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-10)


def test_recurrence_passes_the_numerical_gradient_check() -> None:
    f, u, h0 = random_recurrence()
    assert torch.autograd.gradcheck(lambda f, u: Recurrence.apply(f, u, h0), (f, u))


def test_recurrence_does_not_change_its_inputs() -> None:
    f, u, h0 = (t.detach() for t in random_recurrence())
    copies = [t.clone() for t in (f, u, h0)]
    Recurrence.apply(f, u, h0)
    assert all(torch.equal(a, b) for a, b in zip((f, u, h0), copies, strict=True))


def test_algebraic_sigmoid_rises_from_0_to_1() -> None:
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])
    assert algebraic_sigmoid(x).tolist() == [0.125, 0.25, 0.5, 0.75, 0.875]


def test_normalised_rows_have_a_root_mean_square_of_one() -> None:
    rows = torch.randn(4, 50) * torch.tensor([1.0, 1e-2, 1e3, 7.0])[:, None]
    assert torch.allclose(normalise(rows).square().mean(-1), torch.ones(4), atol=1e-3)


@torch.no_grad()
def test_windows_continue_where_the_last_one_ended(model: LanguageModel) -> None:
    text = ids(model)
    text[7, 1] = model.bos
    whole, end = model(text, model.initial_state(LANES))
    state, parts = model.initial_state(LANES), []
    for at in (slice(0, 1), slice(1, 6), slice(6, 7), slice(7, STEPS)):
        hidden, state = model(text[at], state)
        parts.append(hidden)
    assert torch.allclose(torch.cat(parts), whole, atol=1e-5)
    for layer, expected in zip(state, end, strict=True):
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(layer, expected, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("at", [0, 1, 5, STEPS - 1])
def test_begin_resets_its_lane_exactly(model: LanguageModel, at: int) -> None:
    text, other = ids(model, 0), ids(model, 1)
    text[at, 1] = model.bos
    other[at:] = text[at:]
    _, state = model(ids(model, 2), model.initial_state(LANES))
    first, _ = model(text, model.initial_state(LANES))
    second, _ = model(other, state)
    assert torch.equal(first[at:, 1], second[at:, 1])
    # The other lanes go on with what they know.
    assert not torch.equal(first[at:, 0], second[at:, 0])


@torch.no_grad()
def test_text_after_begin_is_predicted_like_one_from_the_start(model: LanguageModel) -> None:
    text = ids(model)
    text[4] = model.bos
    whole, _ = model(text, model.initial_state(LANES))
    fresh, _ = model(text[4:], model.initial_state(LANES))
    assert torch.allclose(whole[4:], fresh, atol=1e-5)


@torch.no_grad()
def test_the_past_matters_and_the_future_does_not(model: LanguageModel) -> None:
    text = ids(model)
    changed = text.clone()
    changed[5] = (changed[5] + 1) % model.config.vocab
    first, _ = model(text, model.initial_state(LANES))
    second, _ = model(changed, model.initial_state(LANES))
    assert torch.equal(first[:5], second[:5])
    assert (first[5:] != second[5:]).any(-1).all()


@torch.no_grad()
def test_lanes_do_not_mix(model: LanguageModel) -> None:
    text = ids(model)
    together, _ = model(text, model.initial_state(LANES))
    alone, _ = model(text[:, 1:2], model.initial_state(1))
    assert torch.allclose(together[:, 1:2], alone, atol=1e-5)


def test_gradients_do_not_reach_the_window_before(model: LanguageModel) -> None:
    _, state = model(ids(model), model.initial_state(LANES))
    assert not any(tensor.requires_grad for layer in state for tensor in layer)


def test_time_constants_are_spread_up_to_the_longest_memory() -> None:
    config = ModelConfig(256, width=16, layers=1, hidden=16, clusters=1, longest_memory=600)
    bias = LanguageModel(config, torch.zeros(1)).token_mixers[0].forget_bias
    tau = 1 / (1 - algebraic_sigmoid(bias)).square()
    spread = torch.logspace(math.log10(2), math.log10(600), 16)
    assert torch.allclose(tau[2:], spread[2:], rtol=1e-4)
    # Below 4 tokens the formula of the bias is not exact.
    assert 2 < tau[0] < tau[1] < tau[2]


@torch.no_grad()
def test_fresh_network_passes_the_embedding_through() -> None:
    model = LanguageModel(ModelConfig(256, 16, 2, 16, 1), torch.zeros(1))
    text = torch.randint(0, 256, (STEPS, LANES))
    hidden, _ = model(text, model.initial_state(LANES))
    assert torch.allclose(hidden, normalise(model.embedding(text)), atol=1e-6)


def test_multiply_adds_are_those_of_the_matrices(model: LanguageModel) -> None:
    mixers = [*model.token_mixers.parameters(), *model.channel_mixers.parameters()]
    assert model.config.body_multiply_adds == sum(p.numel() for p in mixers if p.ndim == 2)


def random_mlp(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = (5, 2, 6), (14, 6), (6, 14)
    return tuple(torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes)


def plain_mlp(x: torch.Tensor, w_up: torch.Tensor, w_down: torch.Tensor) -> torch.Tensor:
    return torch.relu(x @ w_up.t()).square() @ w_down.t()


def test_squared_relu_mlp_passes_the_numerical_gradient_check() -> None:
    x, w_up, w_down = random_mlp(torch.float64)
    assert torch.allclose(SquaredReluMLP.apply(x, w_up, w_down), plain_mlp(x, w_up, w_down), rtol=1e-12)
    assert torch.autograd.gradcheck(SquaredReluMLP.apply, (x, w_up, w_down))


def test_squared_relu_mlp_multiplies_in_bf16_under_autocast_and_its_gradients_are_float32() -> None:
    x, w_up, w_down = random_mlp(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = SquaredReluMLP.apply(x, w_up, w_down)
    assert y.dtype == torch.bfloat16
    weight = torch.arange(60.0).view(5, 2, 6).sin()
    got = y, *torch.autograd.grad((y.float() * weight).sum(), (x, w_up, w_down))
    expected = plain_mlp(x, w_up, w_down)
    wanted = expected, *torch.autograd.grad((expected * weight).sum(), (x, w_up, w_down))
    for a, b in zip(got[1:], wanted[1:], strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()
    assert 0 < (got[0].float() - wanted[0]).norm() < 0.02 * wanted[0].norm()


def test_squared_relu_mlp_does_not_change_its_inputs() -> None:
    inputs = random_mlp(torch.float32)
    copies = [t.detach().clone() for t in inputs]
    SquaredReluMLP.apply(*inputs).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))
