"""Export: a trained network becomes integers, and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import tiny_model

from llmzip.training.export import LOGIT_UNIT, between, export, quantise, restore

pytestmark = pytest.mark.usefixtures("one_thread")


def test_quantise_rounds_each_row_to_its_own_scale() -> None:
    weight = torch.tensor([[0.63, -0.315, 0.004], [0.0, 0.0, 0.0], [-126.0, 1.0, 3.0]])
    matrix = quantise(weight, factor=2.0)
    assert matrix.q.tolist() == [[63, -32, 0], [0, 0, 0], [-63, 0, 2]]
    assert np.allclose(matrix.scale, [0.02, 2.0, 4.0])
    assert (matrix.q.dtype, matrix.scale.dtype) == (np.int8, np.float32)


def test_export_keeps_every_weight_to_half_a_step() -> None:
    model = tiny_model()
    weights = export(model)
    pairs = [
        (weights.embedding, model.embedding.weight, 1.0),
        (weights.head_cluster, model.head_cluster, LOGIT_UNIT),
        (weights.head_token, model.head_token, LOGIT_UNIT),
    ]
    for layer, token, channel in zip(weights.layers, model.token_mixers, model.channel_mixers, strict=True):
        pairs += [(layer.token_in, token.w_in.weight, 1.0), (layer.token_out, token.w_out.weight, 1.0)]
        pairs += [
            (layer.channel_up, channel.w_up.weight, 1.0),
            (layer.channel_down, channel.w_down.weight, 1.0),
        ]
        assert np.array_equal(layer.token_shift, token.shift.detach().numpy())
        assert np.array_equal(layer.forget_bias, token.forget_bias.detach().numpy())
        assert np.array_equal(layer.channel_shift, channel.shift.detach().numpy())
    for matrix, parameter, factor in pairs:
        error = matrix.q * matrix.scale[:, None] - parameter.detach().numpy() * factor
        assert (np.abs(error) <= 0.501 * matrix.scale[:, None]).all()
        assert (np.abs(matrix.q).max(1) == 63).all()
    assert np.array_equal(weights.cluster_starts, model.cluster_starts.numpy())


def test_network_between_two_has_the_share_asked_for_of_each() -> None:
    base, model = tiny_model(1), tiny_model(2)
    expected = [0.25 * old + 0.75 * new for old, new in zip(base.parameters(), model.parameters(), strict=True)]
    found = list(between(base, model, 0.75).parameters())
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


def test_restored_network_exports_to_the_same_integers() -> None:
    weights = export(tiny_model())
    again = export(restore(weights))
    assert np.array_equal(again.cluster_starts, weights.cluster_starts)
    pairs = [(again.embedding, weights.embedding), (again.head_cluster, weights.head_cluster)]
    pairs += [(again.head_token, weights.head_token)]
    for a, b in zip(again.layers, weights.layers, strict=True):
        pairs += zip(a.matrices(), b.matrices(), strict=True)
        for name in ("token_shift", "forget_bias", "channel_shift"):
            assert np.array_equal(getattr(a, name), getattr(b, name))
    for a, b in pairs:
        assert np.array_equal(a.q, b.q)
        assert np.allclose(a.scale, b.scale, rtol=1e-6)
