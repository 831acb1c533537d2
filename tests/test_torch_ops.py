"""The element-wise operations: the same bits from torch, NumPy and compiled loops, on hard inputs.

These are what the promise of the exact profile rests on. A platform where one of them fails cannot decode.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from llmzip.jit import jit
from llmzip.network import torch_ops
from llmzip.network.kernels import DENORMAL_PROBE, denormals_flushed

COUNT = 100_000
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")),
]


def hard_numbers(seed: int) -> np.ndarray:
    """Return finite float32: every exponent at random, denormals, zeros, ties, bounds, odd integers."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 1 << 32, COUNT, dtype=np.uint32)
    denormal = raw[:4000] & np.uint32(0x807FFFFF)
    short = raw[4000:8000] & np.uint32(0xFFFF0000)  # few mantissa bits: exact results and ties
    halves = (rng.integers(-(1 << 22), 1 << 22, 8000) / 2).astype(np.float32)
    tiny, top = np.finfo(np.float32).smallest_normal, np.finfo(np.float32).max
    special = [
        0,
        1,
        1.5,
        2.5,
        0.5,
        127,
        1023,
        1024,
        65536,
        2**-40,
        2**-149,
        3 * 2**-149,
        tiny,
        top,
        2**22,
        1 / 3,
    ]
    special += [2**24 - 1, 2**24, 2**24 + 2, 2**23 - 0.5, 12582912, tiny - 2**-149, 126.5, 127 / 1023]
    chosen = np.repeat(np.float32([*special, *(-v for v in special)]), 40)
    bits = np.concatenate([denormal, short, halves.view(np.uint32), chosen.view(np.uint32), raw])[:COUNT]
    values = rng.permutation(bits).view(np.float32)
    values[~np.isfinite(values)] = np.float32(-0.0)
    return values


def moderate_numbers(seed: int) -> np.ndarray:
    """Return hard numbers of magnitude up to 2^22, with ties."""
    values = hard_numbers(seed)
    values[np.abs(values) > 2.0**22] = np.float32(2.5)
    return values


def on(device: str, values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).to(device)


def assert_same_bits(result: torch.Tensor | np.ndarray, expected: np.ndarray) -> None:
    got = result.cpu().numpy() if isinstance(result, torch.Tensor) else result
    assert got.dtype == expected.dtype == np.float32
    different = np.flatnonzero(got.view(np.int32) != expected.view(np.int32))
    assert not different.size, (different[:5], got[different[:5]], expected[different[:5]])


@jit
def add_loop(a, b, out):
    for i in range(a.shape[0]):
        out[i] = np.float32(a[i] + b[i])


@jit
def subtract_loop(a, b, out):
    for i in range(a.shape[0]):
        out[i] = np.float32(a[i] - b[i])


@jit
def multiply_loop(a, b, out):
    for i in range(a.shape[0]):
        out[i] = np.float32(a[i] * b[i])


@jit
def divide_loop(a, b, out):
    for i in range(a.shape[0]):
        out[i] = np.float32(a[i] / b[i])


@jit
def square_root_loop(a, out):
    for i in range(a.shape[0]):
        out[i] = np.float32(np.sqrt(a[i]))


@jit
def round_loop(a, out):
    rounder = np.float32(12582912.0)
    for i in range(a.shape[0]):
        out[i] = np.int32(np.float32(np.float32(a[i] + rounder) - rounder))


@jit
def to_float_loop(a, out):
    for i in range(a.shape[0]):
        out[i] = np.float32(a[i])


BINARY = {
    "add": (torch_ops.add, np.add, add_loop),
    "subtract": (torch_ops.subtract, np.subtract, subtract_loop),
    "multiply": (torch_ops.multiply, np.multiply, multiply_loop),
    "divide": (torch_ops.divide, np.divide, divide_loop),
}


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:divide by zero")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", BINARY)
def test_binary_operations_are_rounded_once(name: str, device: str) -> None:
    in_torch, in_numpy, in_a_loop = BINARY[name]
    a, b = hard_numbers(1), hard_numbers(2)
    if name == "divide":
        b[b == 0] = np.float32(3.0)  # the only quotients that would not be numbers
    expected, looped = in_numpy(a, b), np.empty_like(a)
    in_a_loop(a, b, looped)
    assert_same_bits(looped, expected)
    assert_same_bits(in_torch(on(device, a), on(device, b)), expected)
    # float64 has more than twice the bits, so that rounding to it first changes nothing
    exact = in_numpy(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)
    normal = np.abs(exact) >= np.finfo(np.float32).smallest_normal
    assert_same_bits(expected[normal], exact[normal])


@pytest.mark.parametrize("device", DEVICES)
def test_operations_give_the_same_bits_at_any_length_and_offset(device: str) -> None:
    # Vectors and what is left over after them, aligned and not, take different paths through every library.
    every_a, every_b = np.abs(hard_numbers(3)), moderate_numbers(4)
    every_b[every_b == 0] = np.float32(3.0)
    for length in (*range(1, 40), 1000, COUNT):
        a, b = every_a[-length:], every_b[-length:]
        ta, tb = on(device, every_a)[-length:], on(device, every_b)[-length:]
        with np.errstate(over="ignore"):
            assert_same_bits(torch_ops.divide(ta, tb), a / b)
            assert_same_bits(torch_ops.square_root(ta), np.sqrt(a))
            assert_same_bits(torch_ops.multiply(ta[::3], tb[::3]), a[::3] * b[::3])
            assert_same_bits(torch_ops.add(ta[1:], tb[1:]), a[1:] + b[1:])
        assert np.array_equal(torch_ops.round_to_int(tb[1:]).cpu().numpy(), np.rint(b[1:]).astype(np.int32))


@pytest.mark.parametrize("device", DEVICES)
def test_square_root_is_correctly_rounded(device: str) -> None:
    values = np.abs(hard_numbers(5))
    expected, looped = np.sqrt(values), np.empty_like(values)
    square_root_loop(values, looped)
    assert_same_bits(looped, expected)
    assert_same_bits(torch_ops.square_root(on(device, values)), expected)
    # Contiguous runs of ordinary numbers are where vector libraries take their shortcuts.
    usual = np.linspace(0.25, 4, COUNT, dtype=np.float32)
    assert_same_bits(torch_ops.square_root(on(device, usual)), np.sqrt(usual))


@pytest.mark.parametrize("device", DEVICES)
def test_rounding_takes_ties_to_even(device: str) -> None:
    values = moderate_numbers(6)
    expected, looped = np.rint(values).astype(np.int32), np.empty(COUNT, np.int32)
    round_loop(values, looped)
    assert np.array_equal(looped, expected)
    rounded = torch_ops.round_to_int(on(device, values))
    assert rounded.dtype == torch.int32
    assert np.array_equal(rounded.cpu().numpy(), expected)
    ties = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5])
    assert torch_ops.round_to_int(on(device, ties)).tolist() == [0, 2, 2, 0, -2, -2, 126]


@pytest.mark.parametrize("device", DEVICES)
def test_integers_become_the_nearest_float_ties_to_even(device: str) -> None:
    rng = np.random.default_rng(7)
    powers = [m << k for m in (1 << 23, 3 << 22) for k in range(7)]
    edges = [sign * (power + d) for sign in (-1, 1) for power in powers for d in range(-3, 4)]
    values = np.concatenate([rng.integers(-(1 << 31), 1 << 31, COUNT), edges, [-(1 << 31), (1 << 31) - 1]])
    values = values.astype(np.int32)
    expected, looped = values.astype(np.float32), np.empty(len(values), np.float32)
    to_float_loop(values, looped)
    assert_same_bits(looped, expected)
    assert_same_bits(torch_ops.to_float(on(device, values)), expected)
    near = np.array([(1 << 24) - 1, (1 << 24) + 1, (1 << 24) + 3], np.int32)
    assert torch_ops.to_float(on(device, near)).tolist() == [2.0**24 - 1, 2.0**24, 2.0**24 + 4]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bound", [1024.0, 65536.0])
def test_clamp_changes_only_what_is_beyond(bound: float, device: str) -> None:
    values = hard_numbers(8)
    limited = np.where(np.abs(values) > np.float32(bound), np.copysign(np.float32(bound), values), values)
    assert_same_bits(torch_ops.clamp(on(device, values), bound), limited)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("width", [1, 7, 16, 100])
def test_absmax_is_the_rows_largest_magnitude(width: int, device: str) -> None:
    rows = hard_numbers(9)[: 500 * width].reshape(500, width).copy()
    rows[3] = np.float32(-0.0)
    rows[4] = np.float32(2.0**-149)
    assert_same_bits(torch_ops.absmax(on(device, rows)), np.abs(rows).max(-1, keepdims=True))


@pytest.mark.parametrize("device", DEVICES)
def test_constant_has_the_shape_of_its_model_and_is_float32(device: str) -> None:
    like = torch.zeros(2, 3, dtype=torch.float64, device=device)
    value = torch_ops.constant(1 / 127, like)
    assert value.shape == (2, 3)
    assert value.device.type == device
    assert_same_bits(value, np.full((2, 3), np.float32(1 / 127)))


def test_denormals_are_results_like_any_other() -> None:
    smallest = np.float32(2.0**-126)
    half = torch_ops.multiply(torch.full((50,), float(smallest)), torch.full((50,), 0.5))
    assert_same_bits(half, np.full(50, smallest * np.float32(0.5)))
    assert (half > 0).all()


def test_division_refuses_scalars_which_torch_would_turn_into_reciprocals() -> None:
    row = torch.ones(3)
    with pytest.raises(ValueError, match="both sides"):
        torch_ops.divide(torch.tensor(127.0), row)
    with pytest.raises(ValueError, match="both sides"):
        torch_ops.divide(row, torch.tensor(127.0))


def test_trap_scalar_over_tensor_is_not_a_division() -> None:
    # Why `divide` is as it is. Should torch ever divide here, this says so and nothing else breaks.
    values = np.abs(hard_numbers(10))
    values = values[(values > 2.0**-60) & (values < 2.0**60)]
    t = torch.from_numpy(values)
    assert_same_bits(torch_ops.divide(torch_ops.constant(127.0, t), t), np.float32(127) / values)
    if np.array_equal((127.0 / t).numpy(), np.float32(127) / values):
        pytest.skip("this torch divides a scalar by a tensor")


def test_flushing_of_denormals_is_seen_in_the_thread_that_has_it() -> None:
    seen = []

    def flushed() -> bool:
        return bool(denormals_flushed(DENORMAL_PROBE))

    def look() -> None:
        seen.append(flushed())

    def flush_and_look() -> None:
        seen.append(torch.set_flush_denormal(True))
        look()
        child = threading.Thread(target=look)  # starts with the setting of the thread that starts it
        child.start()
        child.join()
        torch.set_flush_denormal(False)
        look()

    assert not flushed()
    thread = threading.Thread(target=flush_and_look)
    thread.start()
    thread.join()
    if not seen[0]:
        pytest.skip("this CPU cannot flush denormals")
    assert seen == [True, True, True, False]
    assert not flushed()
