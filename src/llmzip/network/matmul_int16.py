"""The ``int16`` matmul backend: pairs of neighbouring k, ``acc += q[k] * w[k] + q[k+1] * w[k+1]`` for all columns.

On x86 LLVM turns the pattern into one ``vpmaddwd`` per register, twice the work of a float32 multiply-add; on other
machines into what they have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from llmzip.jit import jit
from llmzip.network.tile import ROWS_AT_ONCE, TileKind, load, pack_blocks, tile

# 8 accumulators, the best of the tiles tried (docs/experiments/2026-11-23-matmul-backends.md).
ROWS = 4
VECTORS = 2
COLUMNS = 8 * VECTORS
PAIR = 2

_SUMS = ir.VectorType(ir.IntType(32), 8)
_BYTES = ir.VectorType(ir.IntType(8), 16)
_PAIRS16 = ir.VectorType(ir.IntType(16), 16)
_PAIRS32 = ir.VectorType(ir.IntType(32), 16)


def _load_weights(b: Any, address: Any) -> Any:
    return b.sext(load(b, address, _BYTES), _PAIRS16)


def _multiply_add(b: Any, sums: Any, weights: Any, own: Any) -> Any:
    product = b.mul(b.sext(b.bitcast(own, _PAIRS16), _PAIRS32), b.sext(weights, _PAIRS32))
    undefined = ir.Constant(_PAIRS32, ir.Undefined)
    even = b.shuffle_vector(product, undefined, ir.Constant(_SUMS, list(range(0, 16, 2))))
    odd = b.shuffle_vector(product, undefined, ir.Constant(_SUMS, list(range(1, 16, 2))))
    return b.add(sums, b.add(even, odd))


_KIND = TileKind(_SUMS, VECTORS, 16, _load_weights, _multiply_add)
_tile_full, _tile_one = tile(ROWS, _KIND), tile(1, _KIND)


def pack_pairs(weight: np.ndarray) -> np.ndarray:
    """Return int8 ``[N, K]`` as the kernel reads it, ``[N / 16, K / 2, 16, 2]``, padded with zeros."""
    return pack_blocks(weight, COLUMNS, PAIR)


@jit
def pair_product(q, packed, acc):
    """Write int32 `acc` ``[M, N]`` for int16 `q` ``[M, K]`` and int8 `packed` ``[N / 16, K / 2, 16, 2]``.

    The caller guarantees the shapes: N a multiple of 16, K even and not 0, all contiguous.
    """
    m, n = acc.shape
    k = q.shape[1]
    q_at, w_at, acc_at = q.ctypes.data, packed.ctypes.data, acc.ctypes.data
    for top in range(0, m, ROWS_AT_ONCE):
        bottom = min(top + ROWS_AT_ONCE, m)
        for block in range(packed.shape[0]):
            weights = w_at + block * k * COLUMNS
            out = acc_at + block * COLUMNS * 4
            row = top
            while row + ROWS <= bottom:
                _tile_full(q_at + row * k * 2, k * 2, 0, weights, k // PAIR, out + row * n * 4, n * 4)
                row += ROWS
            while row < bottom:
                _tile_one(q_at + row * k * 2, k * 2, 0, weights, k // PAIR, out + row * n * 4, n * 4)
                row += 1
