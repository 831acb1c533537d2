"""The fused recurrence against the loop: on a GPU, or with TRITON_INTERPRET=1 in Triton's interpreter on the CPU."""

from __future__ import annotations

import os

import pytest
import torch

from llmzip.training.model import Recurrence, fused_recurrence

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


@pytest.fixture
def kernel():
    pytest.importorskip("triton")
    if not CUDA and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("neither a GPU nor TRITON_INTERPRET=1")
    from llmzip.training import recurrence_kernel

    return recurrence_kernel


# One step, one channel; channels that fill no program, one, or several with a rest.
SHAPES = [(1, 1, 1), (1, 3, 50), (7, 3, 50), (4, 2, 64), (5, 2, 129), (33, 4, 96)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.01)])
@pytest.mark.parametrize("shape", SHAPES)
def test_fused_recurrence_is_that_of_the_loop(kernel, shape: tuple[int, ...], dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    f = torch.rand(shape, generator=generator).to(dtype)
    u, grad_h = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    h0 = torch.randn(shape[1:], generator=generator).to(dtype)
    plain_f, plain_u = (t.float().requires_grad_() for t in (f, u))
    expected = Recurrence.apply(plain_f, plain_u, h0.float())
    expected.backward(grad_h.float())
    f, u, grad_h, h0 = (t.to(DEVICE) for t in (f, u, grad_h, h0))
    h = kernel.forward(f, u, h0)
    grad_f, grad_u = kernel.backward(f, h, h0, grad_h)
    for got, wanted in ((h, expected), (grad_f, plain_f.grad), (grad_u, plain_u.grad)):
        assert got.dtype == dtype
        assert torch.allclose(got.float().cpu(), wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item())


def test_fused_recurrence_takes_tensors_that_are_not_contiguous(kernel) -> None:
    zfg, grad_h = torch.rand(2, 5, 3, 40, device=DEVICE).unbind()
    f, u = zfg.chunk(2, -1)
    grad_h, h0 = grad_h[..., :20], zfg[0, :, 10:30]
    got = kernel.forward(f, u, h0)
    assert torch.equal(got, kernel.forward(f.contiguous(), u.contiguous(), h0.contiguous()))
    expected = kernel.backward(f.contiguous(), got, h0.contiguous(), grad_h.contiguous())
    assert all(map(torch.equal, kernel.backward(f, got, h0, grad_h), expected))


def test_cpu_and_what_triton_cannot_run_on_have_the_loop() -> None:
    assert fused_recurrence(torch.device("cpu")) is None
    if not CUDA:
        assert fused_recurrence(torch.device("cuda")) is None


@pytest.mark.skipif(not CUDA, reason="no GPU")
def test_gpu_uses_the_kernel(kernel) -> None:
    assert fused_recurrence(DEVICE) is kernel
