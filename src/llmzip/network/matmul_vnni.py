"""The inner kernel of the ``vnni`` backend: x86 instructions that multiply and add four pairs of bytes at once.

``vpdpbusd`` multiplies unsigned by signed bytes, so weights are stored plus 64 and 64 times the sum of a row's
activations is taken off first. It does not saturate: four products of 7 by 8 bits and any number of sums stay
within int32. 512 bits wide where the CPU has AVX-512, else 256 (AVX-VNNI).
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from llmzip.jit import config, jit

COLUMNS = 32  # of a block
QUAD = 4
OFFSET = 64  # makes weights of 7 bits positive
ROWS_AT_ONCE = 32  # their products stay in the first caches while the weights stream past

_FEATURES = llvm.get_host_cpu_features()
_WIDTH = 16 if _FEATURES.get("avx512vnni") else 8
_VECTORS = COLUMNS // _WIDTH
# Of a tile: its sums and the weights of a block stay in the 32 registers of AVX-512, else 16.
ROWS = 8 if _WIDTH == 16 else 2

_I8, _I32, _I64 = (ir.IntType(bits) for bits in (8, 32, 64))
_ACC = ir.VectorType(_I32, _WIDTH)
_BYTES = ir.VectorType(_I8, 4 * _WIDTH)


def available() -> bool:
    """Tell whether this CPU has the instructions, and numba compiles for this CPU."""
    if config.CPU_NAME or config.CPU_FEATURES:
        return False
    wide = _FEATURES.get("avx512vnni") and _FEATURES.get("avx512f") and _FEATURES.get("avx512bw")
    return bool(wide or _FEATURES.get("avxvnni"))


def _tile(rows: int) -> Any:
    """Make an intrinsic that computes `rows` rows of one block of columns, given addresses as integers."""

    @intrinsic
    def tile(typing_context, q, q_stride, sums, weights, quads, acc, acc_stride):  # noqa: ARG001 - numba counts them
        signature = types.void(*[types.intp] * 7)

        def generate(context, builder, signature, args):  # noqa: ARG001 - likewise
            q, q_stride, sums, weights, quads, acc, acc_stride = args
            b = builder
            kind = ir.FunctionType(_ACC, [_ACC, _BYTES, _BYTES])
            name = f"llvm.x86.avx512.vpdpbusd.{32 * _WIDTH}"
            dot = b.module.globals.get(name) or ir.Function(b.module, kind, name)

            def splat(value: Any) -> Any:
                undefined = ir.Constant(_ACC, ir.Undefined)
                one = b.insert_element(undefined, value, ir.Constant(_I32, 0))
                return b.shuffle_vector(one, undefined, ir.Constant(_ACC, [0] * _WIDTH))

            def number(address: Any, row: int, stride: Any) -> Any:
                place = b.add(address, b.mul(stride, ir.Constant(_I64, row)))
                return b.load(b.inttoptr(place, _I32.as_pointer()), align=1)

            starts = [
                splat(b.mul(number(sums, r, ir.Constant(_I64, 4)), ir.Constant(_I32, -OFFSET))) for r in range(rows)
            ]
            before, loop, done = b.block, b.append_basic_block("quad"), b.append_basic_block("done")
            b.branch(loop)
            b.position_at_end(loop)
            quad = b.phi(_I64)
            quad.add_incoming(ir.Constant(_I64, 0), before)
            totals = [[b.phi(_ACC) for _ in range(_VECTORS)] for _ in range(rows)]
            at = b.add(weights, b.mul(quad, ir.Constant(_I64, QUAD * COLUMNS)))
            columns = []
            for v in range(_VECTORS):
                place = b.add(at, ir.Constant(_I64, v * 4 * _WIDTH))
                columns.append(b.load(b.inttoptr(place, _BYTES.as_pointer()), align=1))
            at = b.add(q, b.mul(quad, ir.Constant(_I64, QUAD)))
            for r in range(rows):
                four = b.bitcast(splat(number(at, r, q_stride)), _BYTES)
                for v in range(_VECTORS):
                    total = b.call(dot, [totals[r][v], columns[v], four])
                    totals[r][v].add_incoming(starts[r], before)
                    totals[r][v].add_incoming(total, loop)
                    totals[r][v] = total
            following = b.add(quad, ir.Constant(_I64, 1))
            quad.add_incoming(following, loop)
            b.cbranch(b.icmp_signed("<", following, quads), loop, done)

            b.position_at_end(done)
            for r in range(rows):
                row = b.add(acc, b.mul(acc_stride, ir.Constant(_I64, r)))
                for v in range(_VECTORS):
                    pointer = b.inttoptr(b.add(row, ir.Constant(_I64, v * 4 * _WIDTH)), _ACC.as_pointer())
                    b.store(totals[r][v], pointer, align=1)
            return context.get_dummy_value()

        return signature, generate

    return tile


def pack_quads(weight: np.ndarray) -> np.ndarray:
    """Return int8 ``[N, K]`` as the kernel reads it, uint8 ``[N / 32, K / 4, 32, 4]``, padded with zero weights."""
    n, k = weight.shape
    padded = np.full((-(-n // COLUMNS) * COLUMNS, -(-k // QUAD) * QUAD), OFFSET, np.uint8)
    padded[:n, :k] = weight.astype(np.int16) + OFFSET
    blocks = padded.reshape(-1, COLUMNS, padded.shape[1] // QUAD, QUAD)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3))


_tile_full, _tile_4, _tile_2, _tile_1 = (_tile(rows) for rows in (ROWS, 4, 2, 1))


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
                _tile_full(q_at + row * k, k, s_at + row * 4, weights, k // QUAD, out + row * n * 4, n * 4)
                row += ROWS
            if ROWS > 4 and row + 4 <= bottom:
                _tile_4(q_at + row * k, k, s_at + row * 4, weights, k // QUAD, out + row * n * 4, n * 4)
                row += 4
            if ROWS > 2 and row + 2 <= bottom:
                _tile_2(q_at + row * k, k, s_at + row * 4, weights, k // QUAD, out + row * n * 4, n * 4)
                row += 2
            if row < bottom:
                _tile_1(q_at + row * k, k, s_at + row * 4, weights, k // QUAD, out + row * n * 4, n * 4)
    # numba frees an array after its last use, and an address is none: so both live until the tiles are done.
    sums[0] = narrow[0, 0]
