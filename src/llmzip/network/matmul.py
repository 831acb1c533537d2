"""Matmul backends: the ways to compute an exact integer matrix product.

``acc[m, n] = sum_k q[m, k] * w[n, k]`` with |q| <= 127 and |w| <= 63 is the same int32 on every backend, so
the fastest one on a machine may be taken:

- ``vnni``, ``maddubs`` and ``sdot``: our kernels on int8, where the CPU has the instructions;
- ``int16``: our kernel on pairs of int16, on every CPU (all four: :mod:`llmzip.network.packed`);
- ``int8``: ``torch._int_mm``; weights of 7 bits keep oneDNN's int16 pair sums from saturating without VNNI;
- ``float32``: a float matrix product carrying integers, exact in any order while K * 127 * 63 < 2^24, so K is
  cut into blocks of 2048. The only one that also runs on CUDA (:mod:`llmzip.network.torch_device`).

A backend is used only after it has multiplied worst-case operands correctly on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from llmzip.errors import HardwareError
from llmzip.jit import jit
from llmzip.kernel_cache import config
from llmzip.network.packed import KERNELS, multiply_packed, packed_shape
from llmzip.network.softmax import multiply

K_BLOCK = 2048
RECHECK_FAILED = "this machine computed two different matrix products (test its memory)"
RECHECK_EVERY = 128  # rows
Product = Callable[[np.ndarray, np.ndarray], None]  # (q int16 [M, K], acc int32 [M, N]) -> acc is written


def binder(name: str) -> Callable[[np.ndarray], Product]:
    """Return the function that binds int8 ``[N, K]`` to one of our kernels, whose blocks are padded with zeros."""

    def bind(weight: np.ndarray) -> Product:
        n, k = weight.shape
        packed = KERNELS[name].pack(weight)
        blocks, groups, columns, each = packed_shape(packed)
        padded = blocks * columns, groups * each
        if padded == weight.shape:
            return lambda q, acc: multiply_packed(q, packed, acc)

        def product(q: np.ndarray, acc: np.ndarray) -> None:
            wide_q = np.zeros((len(q), padded[1]), np.int16)
            wide_q[:, :k] = q
            wide = np.empty((len(q), padded[0]), np.int32)
            multiply_packed(wide_q, packed, wide)
            acc[:] = wide[:, :n]

        return product

    return bind


def bind_int8(weight: np.ndarray) -> Product:
    """Bind int8 ``[N, K]`` to ``torch._int_mm``."""
    import torch

    transposed = torch.from_numpy(np.ascontiguousarray(weight)).t()

    def product(q: np.ndarray, acc: np.ndarray) -> None:
        torch._int_mm(torch.from_numpy(q.astype(np.int8)), transposed, out=torch.from_numpy(acc))

    return product


def bind_float32(weight: np.ndarray) -> Product:
    """Bind int8 ``[N, K]`` to float32 products over blocks of K, summed in int32."""
    import torch

    k = weight.shape[1]
    blocks = [
        (slice(a, a + K_BLOCK), torch.from_numpy(weight[:, a : a + K_BLOCK].T.astype(np.float32)))
        for a in range(0, k, K_BLOCK)
    ]

    def product(q: np.ndarray, acc: np.ndarray) -> None:
        rows = torch.from_numpy(q.astype(np.float32))
        total = torch.from_numpy(acc)
        for i, (part, block) in enumerate(blocks):
            exact = torch.mm(rows[:, part], block)
            total.copy_(exact) if i == 0 else total.add_(exact.to(torch.int32))

    return product


BINDERS: dict[str, Callable[[np.ndarray], Product]] = {
    **{name: binder(name) for name in KERNELS},
    "int8": bind_int8,
    "float32": bind_float32,
}


def self_test(bind: Callable[[np.ndarray], Product], shape: tuple[int, int], rows: int, peak: int = 63) -> bool:
    """Multiply worst-case operands of `shape` (N, K) and return whether every sum is right.

    Random operands do not saturate: all entries are at +-127 and +-`peak`, in rows of equal and of alternating
    sign.
    """
    n, k = shape
    sign = np.where(np.arange(k) % 3 == 0, -1, 1)
    weights = np.stack([np.full(k, peak), np.full(k, -peak), peak * sign]).astype(np.int8)
    weights[0, -1] = peak - 1 + k % 2  # makes the sums odd: beyond 2^24 float32 would round them
    inputs = np.stack([np.full(k, 127), 127 * sign, np.full(k, -127)]).astype(np.int16)
    row, column = np.arange(rows) % 3, np.arange(n) % 3
    acc = np.empty((rows, n), np.int32)
    bind(weights[column])(inputs[row], acc)
    sums = inputs.astype(np.int64) @ weights.astype(np.int64).T
    return bool(np.array_equal(acc, sums[row[:, None], column]))


def fits(name: str, shapes: Iterable[tuple[int, int]], peak: int = 63) -> bool:
    """Return whether a network of matrices (N, K) with weights within +-`peak` may be packed for a kernel of ours.

    Its rows have to be whole groups: only :data:`BINDERS` fill them up.
    """
    kernel = KERNELS[name]
    return peak <= kernel.peak and not any(k % kernel.group for _, k in shapes)


def fitting(name: str, shapes: Iterable[tuple[int, int]], peak: int = 63) -> str:
    """Return a backend's name; raises ValueError if it is a kernel of ours that :func:`fits` no such network."""
    if name in KERNELS and not fits(name, shapes, peak):
        raise ValueError(f"this network's widths do not fit the {name} backend, or its weights are too large")
    return name


def candidates() -> list[str]:
    """Return the backends worth trying here, the fastest first.

    Importing torch takes seconds, and its threads get in the way of ours: it is the reserve.
    """
    if config.DISABLE_JIT:
        return ["float32"]
    slower = {"maddubs"} if "vnni" in KERNELS else set()
    return [name for name in KERNELS if name not in slower]


def choose(shapes: Iterable[tuple[int, int]], rows: int, peak: int = 63) -> str:
    """Return the fastest backend that is exact for every (N, K) of `shapes` at one row and at `rows` rows.

    Weights are within +-`peak`. Those of 8 bits are for the compiled kernels: others may saturate.

    Raises HardwareError if none is.
    """
    distinct = sorted(set(shapes))
    fit = [name for name in BINDERS if name not in KERNELS or fits(name, distinct, peak)]
    likely = [name for name in candidates() if name in fit]
    reserve = [] if config.DISABLE_JIT or peak > 63 else [name for name in fit if name not in likely]
    for name in likely + reserve:
        if all(self_test(BINDERS[name], shape, r, peak) for shape in distinct for r in {1, rows}):
            return name
    raise HardwareError("this machine multiplies integers wrongly in every way known to llmzip (see llmzip doctor)")


@jit
def row_is_right(q, weight, acc):
    """Return whether `acc` int32 ``[N]`` is the product of `q` ``[K]`` and `weight` int8 ``[N, K]``, by plain sums."""
    expected = np.empty(weight.shape[0], np.int32)
    multiply(weight, 0, q, expected)
    wrong = 0
    for n in range(len(expected)):
        wrong += 1 if expected[n] != acc[n] else 0
    return wrong == 0


def rechecked(product: Product, weight: np.ndarray) -> Product:
    """Recompute about 1 % of the rows of `product` another way: bad hardware must not cost anybody a file."""
    rows, checks = 0, 0

    def checked(q: np.ndarray, acc: np.ndarray) -> None:
        nonlocal rows, checks
        product(q, acc)
        rows += len(q)
        while rows >= RECHECK_EVERY:
            rows -= RECHECK_EVERY
            row = checks % len(q)  # every row of a batch has its turn
            checks += 1
            if not row_is_right(q[row], weight, acc[row]):
                raise HardwareError(RECHECK_FAILED)

    return checked
