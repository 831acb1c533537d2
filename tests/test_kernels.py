"""The compiled kernels against the torch pieces and against plain NumPy, bit for bit, on hard rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmzip.network import kernels, torch_device, torch_ops

WIDTHS = [8, 24, 100, 512]
SMALLEST_DENORMAL = 2.0**-149


def hard_rows(width: int, seed: int = 0) -> np.ndarray:
    """Return rows of ordinary numbers of all sizes, of zeros, denormals and outliers."""
    rng = np.random.default_rng(seed)
    scales = np.exp2(rng.uniform(-60, 60, (150, 1)))
    rows = (rng.standard_normal((150, width)) * scales).astype(np.float32)
    rows[:40] = rng.standard_normal((40, width))
    rows[1], rows[2] = 0.0, -0.0
    rows[3] = rng.integers(-9, 10, width) * SMALLEST_DENORMAL
    rows[4] = 2.0**-40 * rng.uniform(-1, 1, width)  # around the smallest absmax
    rows[5] = 2.0**-41
    rows[6, rng.integers(width)] = 3e38
    rows[7, rng.integers(width)] = -65536.0
    rows[8] = 65536.0
    rows[9] = np.where(rng.random(width) < 0.5, SMALLEST_DENORMAL, 1e30)
    rows[10] = 0.0
    rows[10, -1] = -1.0
    # Ties: with an absmax of 127 the quantised value is the number itself.
    rows[11:20] = rng.integers(-253, 254, (9, width)) / 2
    rows[11:20, 0] = 127.0
    return rows


def bits(values: np.ndarray | torch.Tensor) -> np.ndarray:
    array = values.numpy() if isinstance(values, torch.Tensor) else values
    assert array.dtype == np.float32
    return np.ascontiguousarray(array).view(np.int32)


def quantised(rows: np.ndarray, peak: float = 127) -> tuple[np.ndarray, np.ndarray]:
    q = np.full(rows.shape, 9999, np.int16)
    scales = [kernels.quantise_to(np.float32(peak), row, out) for row, out in zip(rows, q, strict=True)]
    return q, np.array(scales, np.float32)


def normalised(rows: np.ndarray) -> np.ndarray:
    n = np.full(rows.shape, np.nan, np.float32)
    for row, out in zip(rows, n, strict=True):
        kernels.normalise_row(row, np.float32(1.0 / rows.shape[1]), out)
    return n


@pytest.mark.parametrize("peak", [127, 2032])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_quantised_row_is_the_same_everywhere(width: int, peak: int) -> None:
    rows = hard_rows(width)
    q, s = quantised(rows, peak)
    in_torch, scale = torch_device.quantise(torch.from_numpy(rows), peak)
    assert np.array_equal(q, in_torch.numpy())
    assert np.array_equal(bits(s), bits(scale[:, 0]))
    m = np.maximum(np.abs(rows).max(1, keepdims=True), np.float32(2.0**-40))
    assert np.array_equal(q, np.rint(rows * (np.float32(peak) / m)))
    assert np.array_equal(bits(s), bits(m[:, 0] * np.float32(1 / peak)))


@pytest.mark.parametrize("width", WIDTHS)
def test_quantised_rows_keep_their_bounds_and_use_them(width: int) -> None:
    rows = np.concatenate([hard_rows(width, seed) for seed in range(4)])
    q, s = quantised(rows)
    assert np.abs(q).max() == 127
    assert np.isfinite(s).all()
    assert (s > 0).all()
    large = np.abs(rows).max(1) >= 2.0**-40
    assert (np.abs(q).max(1)[large] == 127).all()
    # A row with a smaller absmax has the scale of one at the bound.
    assert not q[3].any()
    assert s[1] == s[2] == s[3] == s[5]


@pytest.mark.parametrize("width", WIDTHS)
def test_quantised_rows_are_close_to_the_rows(width: int) -> None:
    rows = hard_rows(width)
    q, s = quantised(rows)
    error = np.abs(q.astype(np.float64) * s[:, None] - rows)
    assert (error <= 0.5001 * s[:, None]).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_normalise_row_is_the_same_everywhere(width: int) -> None:
    rows = hard_rows(width)
    n = normalised(rows)
    assert np.array_equal(bits(n), bits(torch_device.normalise(torch.from_numpy(rows))))
    m = np.maximum(np.abs(rows).max(1, keepdims=True), np.float32(2.0**-40))
    r = np.float32(1023) / m
    k = np.rint(rows * r).astype(np.int64)
    total = np.maximum((k * k).sum(1, keepdims=True), 1).astype(np.float32)
    assert np.array_equal(bits(n), bits(rows * (r / np.sqrt(total * np.float32(1 / width)))))


@pytest.mark.parametrize("width", WIDTHS)
def test_normalised_rows_have_a_root_mean_square_of_one(width: int) -> None:
    rows = hard_rows(width)[20:]
    rows = rows[np.abs(rows).max(1) > 2.0**-30]
    mean_square = (normalised(rows).astype(np.float64) ** 2).mean(1)
    assert np.abs(mean_square - 1).max() < 0.01


def test_norm_of_the_widest_row_stays_in_int32() -> None:
    row = np.full(2048, 65536.0, np.float32)
    row[::2] = -65536.0
    assert np.array_equal(np.abs(normalised(row[None])), np.abs(row[None] / row))


def test_shift_row_adds_the_weighted_previous_row_and_remembers_this_one() -> None:
    n, weight, last, u = hard_rows(24)[[20, 21, 22, 0]]
    expected = n + weight * last
    kernels.shift_row(n, weight, last, u)
    assert np.array_equal(bits(u), bits(expected))
    assert np.array_equal(last, n)


def test_embed_scales_the_rows_of_the_table() -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(-63, 64, (20, 8)).astype(np.int8)
    scales = rng.uniform(0, 1, 20).astype(np.float32)
    ids = rng.integers(0, 20, 50).astype(np.int32)
    x = np.empty((50, 8), np.float32)
    kernels.embed(ids, table, scales, x)
    assert np.array_equal(bits(x), bits(table[ids].astype(np.float32) * scales[ids, None]))


class Products:
    """Random outputs of a matrix product: small ones, and some that reach the clamps."""

    def __init__(self, rows: int, columns: int):
        rng = np.random.default_rng(columns)
        self.acc = rng.integers(-300_000, 300_001, (rows, columns)).astype(np.int32)
        self.acc[rows // 2] = 0
        self.acc[rows // 3] = rng.integers(-(1 << 29), 1 << 29, columns)
        self.s = np.exp2(rng.uniform(-20, -4, rows)).astype(np.float32)
        self.s[-1] = 8000.0
        self.scales = np.exp2(rng.uniform(-12, 0, columns)).astype(np.float32)
        self.scales[1], self.scales[2] = 2.0**-40, 2.0**20

    def linear(self) -> np.ndarray:
        """Return the products in float32, one rounding at a time."""
        return self.acc.astype(np.float32) * self.s[:, None] * self.scales


@pytest.mark.parametrize("width", WIDTHS)
def test_add_residual_is_the_same_everywhere(width: int) -> None:
    products, x = Products(150, width), hard_rows(width)
    expected = np.clip(x + products.linear(), np.float32(-65536), np.float32(65536))
    in_torch = torch_ops.clamp(torch_ops.add(torch.from_numpy(x), torch.from_numpy(products.linear())), 65536.0)
    kernels.add_residual(x, products.acc, products.s, products.scales)
    assert np.array_equal(bits(x), bits(expected))
    assert np.array_equal(bits(x), bits(in_torch))
    assert np.abs(x).max() == 65536


@pytest.mark.parametrize("width", WIDTHS)
def test_square_is_the_same_everywhere(width: int) -> None:
    products = Products(90, width)
    q, s = np.empty((90, width), np.int16), np.empty(90, np.float32)
    kernels.square(products.acc, products.s, products.scales, q, s, np.empty(width, np.float32))
    y = np.clip(products.linear(), 0, 1024)
    expected_q, expected_s = torch_device.quantise(torch.from_numpy(y * y))
    assert np.array_equal(q, expected_q.numpy())
    assert np.array_equal(bits(s), bits(expected_s[:, 0]))
    assert q.min() >= 0
    assert s.max() == np.float32(2.0**20) * np.float32(1 / 127)


def asig(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * x / (1 + np.abs(x))


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("width", WIDTHS)
def test_recurrence_is_the_same_everywhere(width: int, lanes: int) -> None:
    steps = 30
    products = Products(steps * lanes, 3 * width)
    bias = np.random.default_rng(1).uniform(-9, 9, width).astype(np.float32)
    bias[0], bias[1] = 1024.0, -1024.0
    h = np.random.default_rng(2).standard_normal((lanes, width)).astype(np.float32)
    h[:, 2] = SMALLEST_DENORMAL  # old states fade into denormals
    h_torch, h_float = torch.from_numpy(h.copy()), h.astype(np.float64)
    q, s = np.empty((steps * lanes, width), np.int16), np.empty(steps * lanes, np.float32)
    scratch = np.empty((2, width), np.float32)
    kernels.recur(products.acc, products.s, products.scales, bias, h, q, s, scratch)

    y = torch_ops.clamp(torch.from_numpy(products.linear()), 1024.0).view(steps, lanes, 3 * width)
    z, f, g = y.chunk(3, -1)
    out = torch_device.TorchSession._recur(h_torch, z, torch_ops.add(f, torch.from_numpy(bias)), g)
    expected_q, expected_s = torch_device.quantise(out)
    assert np.array_equal(bits(h), bits(h_torch))
    assert np.array_equal(q, expected_q.view(-1, width).numpy())
    assert np.array_equal(bits(s), bits(expected_s.view(-1)))

    # Both are the recurrence that was trained.
    for t in range(steps):
        leak = (1 - asig(f[t].double().numpy() + bias)) ** 2
        h_float = (1 - leak) * h_float + leak * z[t].double().numpy()
        gated = h_float * g[t].double().numpy() * asig(g[t].double().numpy())
        assert np.abs(out[t].numpy() - gated).max() <= 1e-4 * np.abs(gated).max()


def test_denormal_states_are_kept() -> None:
    width = 8
    acc, h = np.zeros((1, 3 * width), np.int32), np.full((1, width), 2.0**-130, np.float32)
    q, s = np.empty((1, width), np.int16), np.empty(1, np.float32)
    ones, bias = np.ones(3 * width, np.float32), np.full(width, 1024.0, np.float32)
    kernels.recur(acc, np.ones(1, np.float32), ones, bias, h, q, s, np.empty((2, width), np.float32))
    assert (h > 0).all()


def test_shifted_input_is_its_three_parts_lane_by_lane() -> None:
    lanes, width = 3, 24
    x, weight = hard_rows(width)[:30], hard_rows(width)[30]
    last = hard_rows(width, 1)[20 : 20 + lanes]
    q, s = np.empty((30, width), np.int16), np.empty(30, np.float32)
    previous = np.concatenate([last, normalised(x)])[:30]
    expected_q, expected_s = quantised(normalised(x) + weight * previous)
    kernels.shifted_input(x, np.float32(1 / width), weight, last, q, s, np.empty((2, width), np.float32))
    assert np.array_equal(q, expected_q)
    assert np.array_equal(bits(s), bits(expected_s))
    assert np.array_equal(last, normalised(x)[-lanes:])


def test_final_rows_are_normalised_and_quantised() -> None:
    x = hard_rows(24)
    q, high, low = np.empty((3, *x.shape), np.int16)
    s = np.empty(len(x), np.float32)
    kernels.final_rows(x, np.float32(1 / 24), q, s, high, low, np.empty((2, 24), np.float32))
    expected_q, expected_s = quantised(normalised(x), 2032)
    assert np.abs(q).max() == 2032
    assert np.array_equal(q, 16 * high + low)
    assert max(np.abs(high).max(), np.abs(low).max()) <= 127
    assert np.array_equal(q, expected_q)
    assert np.array_equal(bits(s), bits(expected_s))
