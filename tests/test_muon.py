"""The optimiser Muon."""

from __future__ import annotations

import pytest
import torch

from llmzip.training.muon import Muon, orthogonalise

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("shape", [(24, 24), (16, 60), (60, 16)])
def test_orthogonalised_matrix_has_singular_values_near_one_and_the_same_directions(
    shape: tuple[int, int],
) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator)
    result = orthogonalise(matrix)
    values = torch.linalg.svdvals(result)
    assert values.max() < 1.3
    assert values[: int(0.9 * len(values))].min() > 0.6
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    nearest = u @ vt
    assert (result * nearest).sum() / (result.norm() * nearest.norm()) > 0.97


def test_muon_steps_against_the_gradient_by_its_rate() -> None:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(8, 20, generator=generator).requires_grad_()
    start = matrix.detach().clone()
    gradient = torch.randn(8, 20, generator=generator)
    matrix.grad = gradient
    Muon([matrix], lr=0.1, weight_decay=0.0).step()
    change = matrix.detach() - start
    assert torch.allclose(change, -0.1 * orthogonalise(gradient), atol=1e-5)


def test_muon_keeps_its_momentum_and_decays_weights() -> None:
    matrix = torch.eye(6).requires_grad_()
    optimiser = Muon([matrix], lr=0.1, momentum=0.9, weight_decay=0.5)
    matrix.grad = torch.zeros(6, 6)
    optimiser.step()
    assert torch.allclose(matrix.detach(), 0.95 * torch.eye(6))
    matrix.grad = torch.eye(6)
    optimiser.step()
    assert torch.allclose(optimiser.state[matrix]["momentum"], 0.1 * torch.eye(6))
