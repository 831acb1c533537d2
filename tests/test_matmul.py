"""The backends of integer products: exact where they are used, refused where they are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba.core.compiler
import numpy as np
import pytest

from llmzip.errors import HardwareError
from llmzip.network import matmul
from llmzip.network.matmul import BINDERS, Product, choose, rechecked, self_test
from llmzip.network.matmul_octets import octet_product
from llmzip.network.matmul_vnni import quad_product
from llmzip.network.packed import KERNELS

# (N, K): like the models' own, odd ones, and a K of more than one float32 block
SHAPES = [(16, 32), (96, 32), (17, 30), (1, 2), (3, 16), (33, 46), (256, 64), (40, 4098), (5, 6001)]


pytestmark = pytest.mark.usefixtures("one_thread")


def exact(q: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return q.astype(np.int64) @ weight.astype(np.int64).T


def multiplied(bind: Callable[[np.ndarray], Product], q: np.ndarray, weight: np.ndarray) -> np.ndarray:
    acc = np.full((len(q), len(weight)), 77, np.int32)
    bind(weight)(q, acc)
    return acc


def saturating(sums: int) -> Callable[[np.ndarray], Product]:
    """Imitate a CPU that adds up so many neighbouring products in int16, which stops at its ends."""

    def bind(weight: np.ndarray) -> Product:
        n, k = weight.shape
        wide = np.zeros((n, -(-k // sums) * sums), np.int64)
        wide[:, :k] = weight

        def product(q: np.ndarray, acc: np.ndarray) -> None:
            # oneDNN makes the activations unsigned and takes the excess off again.
            unsigned = np.zeros((len(q), wide.shape[1]), np.int64)
            unsigned[:, :k] = q.astype(np.int64) + 128
            terms = unsigned[:, None] * wide
            groups = terms.reshape(*terms.shape[:2], -1, sums).sum(-1)
            acc[:] = groups.clip(-32768, 32767).sum(-1) - 128 * wide.sum(1)

        return product

    return bind


@pytest.mark.parametrize("name", BINDERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_backend_passes_the_self_test_at_any_shape(name: str, shape: tuple[int, int]) -> None:
    for rows in (1, 2, 5, 33):
        assert self_test(BINDERS[name], shape, rows)


@pytest.mark.parametrize("name", BINDERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_backend_is_exact(name: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape)
    for rows in (1, 3, 4, 7, 35):
        q = rng.integers(-127, 128, (rows, shape[1])).astype(np.int16)
        weight = rng.integers(-63, 64, shape).astype(np.int8)
        assert np.array_equal(multiplied(BINDERS[name], q, weight), exact(q, weight))


@pytest.mark.parametrize("name", BINDERS)
def test_every_backend_is_exact_for_the_largest_odd_sums(name: str) -> None:
    # Beyond 2^24 float32 holds no odd number: this fails if a block of K is too long.
    q = np.full((2, 4099), 127, np.int16)
    q[1, ::2] = 126
    weight = np.full((3, 4099), 63, np.int8)
    weight[1] = -63
    weight[2, ::3] = 62
    expected = exact(q, weight)
    assert (np.abs(expected) > 1 << 24).all()
    assert (expected % 2).any()
    assert np.array_equal(multiplied(BINDERS[name], q, weight), expected)


def test_block_of_k_keeps_float32_sums_exact() -> None:
    assert matmul.K_BLOCK * 127 * 63 < 1 << 24


@pytest.mark.parametrize("name", BINDERS)
def test_products_leave_their_operands_alone(name: str) -> None:
    rng = np.random.default_rng(0)
    q = rng.integers(-127, 128, (5, 30)).astype(np.int16)
    weight = rng.integers(-63, 64, (17, 30)).astype(np.int8)
    before = q.copy(), weight.copy()
    multiplied(BINDERS[name], q, weight)
    assert np.array_equal(q, before[0])
    assert np.array_equal(weight, before[1])


def test_pairs_of_7_bit_weights_do_not_saturate_and_of_8_bit_weights_do() -> None:
    # Why weights have 7 bits: without VNNI oneDNN adds pairs in int16. 8-bit weights are outside the promise.
    rng = np.random.default_rng(1)
    q = rng.choice(np.int16([-127, 127]), (4, 32))
    for peak, holds in ((63, True), (127, False)):
        weight = rng.choice(np.int8([-peak, peak]), (16, 32))
        assert np.array_equal(multiplied(saturating(2), q, weight), exact(q, weight)) == holds


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("shape", [(16, 32), (17, 30)])
def test_self_test_finds_sums_that_saturate(shape: tuple[int, int], rows: int) -> None:
    assert self_test(saturating(2), shape, rows)
    assert not self_test(saturating(4), shape, rows)


@pytest.mark.parametrize("shape", [(16, 4096), (16, 6000), (32, 2304)])
def test_self_test_finds_float32_sums_that_are_not_blocked(shape: tuple[int, int], monkeypatch) -> None:
    monkeypatch.setattr(matmul, "K_BLOCK", 1 << 20)
    assert not self_test(matmul.bind_float32, shape, 1)


def broken(at: int, rows: int) -> Product:
    """Return a backend for 16 columns whose row `at` of each batch of `rows` is wrong in its last column."""

    def product(q: np.ndarray, acc: np.ndarray) -> None:
        acc[:] = 0
        assert len(q) == rows
        acc[at, -1] = 1

    return product


@pytest.mark.parametrize("rows", [1, 4, 32, 256])
def test_recheck_passes_right_products(rows: int) -> None:
    rng = np.random.default_rng(rows)
    weight = rng.integers(-63, 64, (16, 32)).astype(np.int8)
    product = rechecked(BINDERS["int16"](weight), weight)
    acc = np.empty((rows, 16), np.int32)
    for _ in range(300):
        q = rng.integers(-127, 128, (rows, 32)).astype(np.int16)
        product(q, acc)
        assert np.array_equal(acc, exact(q, weight))


@pytest.mark.parametrize(("rows", "at"), [(1, 0), (4, 3), (32, 0), (32, 13), (256, 200)])
def test_recheck_finds_a_row_that_is_always_wrong(rows: int, at: int) -> None:
    weight, q = np.zeros((16, 32), np.int8), np.zeros((rows, 32), np.int16)
    product, acc = rechecked(broken(at, rows), weight), np.empty((rows, 16), np.int32)

    def repeat() -> None:
        # About one row in a hundred is checked, each place of the batch in turn.
        for _ in range(200):
            product(q, acc)

    with pytest.raises(HardwareError, match="two different matrix products"):
        repeat()


def test_recheck_looks_at_about_one_row_in_a_hundred(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(matmul, "row_is_right", lambda *_: seen.append(1) or True)
    product = rechecked(lambda *_: None, np.zeros((16, 32), np.int8))
    for _ in range(1000):
        product(np.zeros((10, 32), np.int16), np.zeros((10, 16), np.int32))
    assert 50 <= len(seen) <= 200


def wrong(weight: np.ndarray) -> Product:
    """Bind to a backend that is fast and wrong."""
    return lambda _, acc: acc.fill(len(weight))


def test_choose_takes_an_exact_backend() -> None:
    assert choose([(96, 32), (32, 32), (17, 30)], 4) in BINDERS


@pytest.mark.parametrize("good", BINDERS)
def test_choose_skips_broken_backends(good: str, monkeypatch) -> None:
    for name in BINDERS:
        if name != good:
            monkeypatch.setitem(BINDERS, name, wrong)
    assert choose([(96, 32), (32, 32)], 4) == good


def test_choose_turns_to_backends_it_would_not_try_first(monkeypatch) -> None:
    for name in KERNELS:
        monkeypatch.setitem(BINDERS, name, wrong)
    assert choose([(32, 32)], 4) in ("int8", "float32")


def test_choose_tests_every_shape_at_one_row_and_at_many(monkeypatch) -> None:
    tested = set()

    def record(_, shape: tuple[int, int], rows: int, peak: int) -> bool:
        assert peak == 63
        tested.add((shape, rows))
        return True

    monkeypatch.setattr(matmul, "self_test", record)
    choose([(96, 32), (32, 48), (96, 32)], 4)
    assert tested == {((96, 32), 1), ((96, 32), 4), ((32, 48), 1), ((32, 48), 4)}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_for_weights_that_they_multiply_exactly(name: str) -> None:
    peak, shape = KERNELS[name].peak, (33, 64)
    assert peak in (63, 127)
    for rows in (1, 5, 8):
        assert self_test(BINDERS[name], shape, rows, peak)
    if peak == 63:
        assert not matmul.fits(name, [shape], 127)
        assert not self_test(BINDERS[name], shape, 8, 127)
        assert choose([shape], 4, 127) != name
        with pytest.raises(ValueError, match="weights are too large"):
            matmul.fitting(name, [shape], 127)


def test_choose_refuses_a_machine_where_nothing_is_right(monkeypatch) -> None:
    for name in BINDERS:
        monkeypatch.setitem(BINDERS, name, wrong)
    with pytest.raises(HardwareError, match="multiplies integers wrongly"):
        choose([(32, 32)], 4)


@pytest.mark.parametrize(("kernel", "arrays"), [(quad_product, ("narrow", "sums")), (octet_product, ("words",))])
def test_arrays_behind_addresses_outlive_the_last_tile(kernel: Any, arrays: tuple[str, ...]) -> None:
    """numba frees an array after the last line that names it: too early if only its address is used further on.

    Another thread could then get the memory, and products were wrong once in some compressions.
    """
    blocks = numba.core.compiler.run_frontend(kernel.py_func).blocks
    lines = [line for label in sorted(blocks) for line in blocks[label].body]
    names = [{variable.name for variable in line.list_vars()} for line in lines]
    tiles = [i for i, line in enumerate(lines) if "_tile" in str(line)]
    for array in arrays:
        assert max(i for i, used in enumerate(names) if array in used) > max(tiles)
