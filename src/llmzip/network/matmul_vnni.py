"""The ``vnni`` matmul backend: x86 instructions that multiply and add four pairs of bytes at once.

``vpdpbusd`` multiplies unsigned by signed bytes, so weights are stored plus 128 and 128 times the sum of a row's
activations is taken off first. It does not saturate: sums of up to 65536 products of 8 by 8 bits stay within int32.
512 bits wide where the CPU has AVX-512, else 256 (AVX-VNNI).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from llmzip.jit import jit
from llmzip.network.instructions import HERE
from llmzip.network.tile import ROWS_AT_ONCE, TileKind, load, pack_blocks, tile

COLUMNS = 32  # of a block
QUAD = 4
OFFSET = 128  # makes weights positive

_I32 = ir.IntType(32)


def available() -> bool:
    """Return whether kernels may use the instructions."""
    return HERE.family == "x86" and HERE.dot_bits > 0


def quad_kind(bits: int) -> TileKind:
    """Return how a group is multiplied in vectors of 256 or 512 bits."""
    width = bits // 32
    sums = ir.VectorType(_I32, width)
    name = f"llvm.x86.avx512.vpdpbusd.{bits}"  # one of 256 bits is compiled for AVX-VNNI as well

    def multiply_add(b: Any, total: Any, weights: list[Any], own: list[Any]) -> Any:
        # With vectors of words, as in LLVM 15: LLVM 22 has vectors of bytes, but knows the older form, too.
        kind = ir.FunctionType(sums, [sums, sums, sums])
        function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
        return b.call(function, [total, weights[0], own[0]])

    return TileKind(
        sums,
        COLUMNS // width,
        QUAD * width,
        load_weights=lambda b, address: load(b, address, sums),
        multiply_add=multiply_add,
        initial_sum=lambda b, total: b.mul(total, ir.Constant(_I32, -OFFSET)),  # takes the weights' offset off
    )


# Rows of a tile: its sums and what it works with stay in the 32 registers of AVX-512, else 16.
ROWS = 8 if HERE.dot_bits == 512 else 3
_KIND = quad_kind(max(HERE.dot_bits, 256))
_tile_full, _tile_4, _tile_2, _tile_1 = (tile(rows, _KIND) for rows in (ROWS, 4, 2, 1))


def pack_quads(weight: np.ndarray) -> np.ndarray:
    """Return int8 ``[N, K]`` as the kernel reads it, uint8 ``[N / 32, K / 4, 32, 4]``, padded with zero weights."""
    return (pack_blocks(weight, COLUMNS, QUAD).astype(np.int16) + OFFSET).astype(np.uint8)


@jit
def quad_product(q, packed, acc):
    """Write int32 `acc` ``[M, N]`` for int16 `q` ``[M, K]`` and `packed` of :func:`pack_quads`.

    The caller guarantees the shapes: N a multiple of 32, K of 4 and not 0, all contiguous.
    """
    m, n = acc.shape
    k = q.shape[1]
    narrow, sums = np.empty((m, k), np.int8), np.empty(m, np.int32)
    for row in range(m):
        total = np.int32(0)
        for i in range(k):
            narrow[row, i] = q[row, i]
            total += np.int32(q[row, i])
        sums[row] = total
    q_at, s_at, w_at, acc_at = narrow.ctypes.data, sums.ctypes.data, packed.ctypes.data, acc.ctypes.data
    for top in range(0, m, ROWS_AT_ONCE):
        bottom = min(top + ROWS_AT_ONCE, m)
        for block in range(packed.shape[0]):
            weights = w_at + block * k * COLUMNS
            out = acc_at + block * COLUMNS * 4
            row = top
            while row + ROWS <= bottom:
                _tile_full(q_at + row * k, k, s_at + row * 4, weights, 0, k // QUAD, out + row * n * 4, n * 4, 0)
                row += ROWS
            if ROWS > 4 and row + 4 <= bottom:
                _tile_4(q_at + row * k, k, s_at + row * 4, weights, 0, k // QUAD, out + row * n * 4, n * 4, 0)
                row += 4
            if ROWS > 2 and row + 2 <= bottom:
                _tile_2(q_at + row * k, k, s_at + row * 4, weights, 0, k // QUAD, out + row * n * 4, n * 4, 0)
                row += 2
            if row < bottom:
                _tile_1(q_at + row * k, k, s_at + row * 4, weights, 0, k // QUAD, out + row * n * 4, n * 4, 0)
    # numba frees an array after its last use, and an address is none: so both live until the tiles are done.
    sums[0] = narrow[0, 0]
