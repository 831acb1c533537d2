"""The two-level loss and its gradients, against their definition."""

from __future__ import annotations

import pytest
import torch
from reference_loss import naive_losses

from llmzip.training.loss import TwoLevelCrossEntropy

pytestmark = pytest.mark.usefixtures("one_thread")


def random_head(seed: int, starts: list[int], vocab: int, rows: int = 40) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    w1 = torch.randn(len(starts), 6, generator=generator, dtype=torch.float64, requires_grad=True)
    w2 = torch.randn(vocab, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, vocab, (rows,), generator=generator)
    return h, w1, w2, target, torch.tensor(starts)


# An ordinary cut, single tokens as clusters, one cluster, clusters that no target falls into.
STARTS = [[0, 3, 4, 5, 11], list(range(17)), [0], [0, 1, 2, 16]]


@pytest.mark.parametrize("starts", STARTS)
def test_two_level_loss_and_gradients_are_those_of_two_softmaxes(starts: list[int]) -> None:
    h, w1, w2, target, first = random_head(0, starts, 17)
    target[3], target[7] = 17, -1  # BOS and padding cost nothing
    total, losses = TwoLevelCrossEntropy.apply(h, w1, w2, target, first)
    expected = naive_losses(h, w1, w2, target, first)
    # The loss itself is summed in float32.
    assert torch.allclose(losses.double(), expected, atol=1e-5)
    assert losses[3] == losses[7] == 0
    assert total.item() == pytest.approx(expected.sum().item(), rel=1e-6)
    got = torch.autograd.grad(3 * total, (h, w1, w2))
    wanted = torch.autograd.grad(3 * expected.sum(), (h, w1, w2))
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a.double(), b, atol=1e-5)


def test_flat_head_is_plain_cross_entropy() -> None:
    h, w1, w2, target, starts = random_head(1, [0], 17)
    _, losses = TwoLevelCrossEntropy.apply(h, w1, w2, target, starts)
    expected = torch.nn.functional.cross_entropy(h @ w2.t(), target, reduction="none")
    assert torch.allclose(losses.double(), expected, atol=1e-5)


def test_loss_of_rows_without_a_target_is_zero() -> None:
    h, w1, w2, target, starts = random_head(2, [0, 5], 17)
    total, _ = TwoLevelCrossEntropy.apply(h, w1, w2, target.fill_(17), starts)
    assert total.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(total, (h, w1, w2)))


def test_loss_does_not_change_its_inputs() -> None:
    inputs = random_head(3, [0, 3, 4, 5, 11], 17)
    copies = [tensor.detach().clone() for tensor in inputs]
    TwoLevelCrossEntropy.apply(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))
