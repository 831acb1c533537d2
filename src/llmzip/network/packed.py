"""Packed matrices: the kernels of our own that this machine has, and the one that a matrix is packed for.

Kernels take any packed matrix: its type, the kind of its entries and the number of its axes, says which it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba.extending import overload

from llmzip.jit import jit
from llmzip.network import matmul_int16, matmul_octets, matmul_vnni
from llmzip.network.matmul_int16 import pack_pairs, pair_product
from llmzip.network.matmul_octets import octet_product, pack_octets
from llmzip.network.matmul_vnni import pack_quads, quad_product

LARGEST = 127  # of weights of 8 bits


@dataclass(frozen=True)
class Kernel:
    """A kernel of our own.

    Attributes:
        pack: from a matrix int8 ``[N, K]``, its packed form.
        group: K is a multiple of it.
        columns: N is filled up to a multiple of it.
        peak: the largest weight for which it is exact.
    """

    pack: Callable[[np.ndarray], np.ndarray]
    group: int
    columns: int
    peak: int = LARGEST


# Of this machine, the likely fastest first.
KERNELS: dict[str, Kernel] = {}
if matmul_vnni.available():
    KERNELS["vnni"] = Kernel(pack_quads, matmul_vnni.QUAD, matmul_vnni.COLUMNS)
if matmul_octets.NAME:
    KERNELS[matmul_octets.NAME] = Kernel(pack_octets, matmul_octets.OCTET, matmul_octets.COLUMNS, matmul_octets.PEAK)
KERNELS["int16"] = Kernel(pack_pairs, matmul_int16.PAIR, matmul_int16.COLUMNS)
WIDEST_BLOCK = max(kernel.columns for kernel in KERNELS.values())


def packed_product(q: np.ndarray, packed: np.ndarray, acc: np.ndarray) -> None:
    """Write the product of int16 `q` and packed weights into `acc`, by the kernel that they are packed for."""
    pair_product(q, packed, acc)  # kernels get one of those below


@overload(packed_product)
def _packed_product(q, packed, acc):  # noqa: ARG001 - chosen by type
    if packed.ndim == 5:
        return lambda q, packed, acc: octet_product(q, packed, acc)
    if packed.dtype == numba.types.uint8:
        return lambda q, packed, acc: quad_product(q, packed, acc)
    return lambda q, packed, acc: pair_product(q, packed, acc)


@jit
def multiply_packed(q, packed, acc):
    """Do what :func:`packed_product` does, called from Python."""
    packed_product(q, packed, acc)


def packed_shape(packed: Any) -> tuple[int, int, int, int]:
    """Return the numbers of blocks, groups of a block, columns of a block, and k of a group."""
    blocks, groups, *words, columns, each = packed.shape
    return blocks, groups, columns, each * (words[0] if words else 1)


@overload(packed_shape)
def _packed_shape(packed):
    if packed.ndim == 5:
        return lambda packed: (packed.shape[0], packed.shape[1], packed.shape[3], packed.shape[2] * packed.shape[4])
    return lambda packed: packed.shape


def packed_weight(packed: Any, block: Any, group: Any, column: Any, i: Any) -> Any:
    """Return one of the packed weights."""
    return packed[block, group, column, i]


@overload(packed_weight, jit_options={"forceinline": True})
def _packed_weight(packed, block, group, column, i):  # noqa: ARG001 - chosen by type
    if packed.ndim == 5:
        offset = np.int32(matmul_octets.OFFSET)
        return lambda packed, block, group, column, i: np.int32(packed[block, group, i // 4, column, i % 4]) - offset
    if packed.dtype == numba.types.uint8:
        offset = np.int32(matmul_vnni.OFFSET)
        return lambda packed, block, group, column, i: np.int32(packed[block, group, column, i]) - offset
    return lambda packed, block, group, column, i: np.int32(packed[block, group, column, i])


@jit
def sum_is_right(q, packed, acc, column):
    """Return whether `acc` int32 ``[N]`` has the right sum for a column, by plain additions; `q` int16 ``[K]``."""
    _, groups, columns, each = packed_shape(packed)
    total = np.int32(0)
    for group in range(groups):
        for i in range(each):
            weight = packed_weight(packed, column // columns, group, column % columns, i)
            total += np.int32(np.int32(q[group * each + i]) * weight)
    return total == acc[column]
