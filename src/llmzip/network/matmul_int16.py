"""The inner kernel of the ``int16`` backend, written in LLVM's vector language.

A tile of rows x 16 columns stays in registers; each step multiplies a pair of neighbouring k for all columns:
``acc += q[k] * w[k] + q[k+1] * w[k+1]``. On x86 LLVM turns the pattern into one ``vpmaddwd`` per register,
twice the work of a float32 multiply-add; on other machines into what they have. numba finds no such code from
Python loops. All integer, so the result is the same everywhere.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from llmzip.jit import jit

ROWS = 4  # with 2 vectors of 8 columns: 8 accumulators, the best of the tiles tried (docs/experiments.md)
VECTORS = 2
COLUMNS = 8 * VECTORS
ROWS_AT_ONCE = 32  # their products stay in the first caches while the weights stream past

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_ACC = ir.VectorType(_I32, 8)
_PAIRS16 = ir.VectorType(_I16, 16)
_PAIRS32 = ir.VectorType(_I32, 16)


def _indices(numbers: list[int]) -> ir.Constant:
    return ir.Constant(_ACC, numbers)


def _tile(rows: int):
    """Make an intrinsic that computes `rows` rows of one block of 16 columns, given addresses as integers."""

    @intrinsic
    def tile(typing_context, q, q_stride, weights, pairs, acc, acc_stride):  # noqa: ARG001 - numba counts them
        signature = types.void(*[types.intp] * 6)

        def generate(context, builder, signature, args):  # noqa: ARG001 - likewise
            q, q_stride, weights, pairs, acc, acc_stride = args
            b = builder
            undefined, undefined_pairs = ir.Constant(_ACC, ir.Undefined), ir.Constant(_PAIRS32, ir.Undefined)
            before, loop, done = b.block, b.append_basic_block("pair"), b.append_basic_block("done")
            b.branch(loop)
            b.position_at_end(loop)
            pair = b.phi(_I64)
            pair.add_incoming(ir.Constant(_I64, 0), before)
            sums = [[b.phi(_ACC) for _ in range(VECTORS)] for _ in range(rows)]

            at = b.add(weights, b.mul(pair, ir.Constant(_I64, 2 * COLUMNS)))
            columns = []
            for v in range(VECTORS):
                place = b.add(at, ir.Constant(_I64, 16 * v))
                pointer = b.inttoptr(place, ir.VectorType(_I8, 16).as_pointer())
                columns.append(b.sext(b.load(pointer, align=1), _PAIRS16))
            for r in range(rows):
                row = b.add(q, b.mul(q_stride, ir.Constant(_I64, r)))
                pointer = b.inttoptr(b.add(row, b.mul(pair, ir.Constant(_I64, 4))), _I32.as_pointer())
                both = b.insert_element(undefined, b.load(pointer, align=1), ir.Constant(_I32, 0))
                both = b.bitcast(b.shuffle_vector(both, undefined, _indices([0] * 8)), _PAIRS16)
                for v in range(VECTORS):
                    product = b.mul(b.sext(both, _PAIRS32), b.sext(columns[v], _PAIRS32))
                    even = b.shuffle_vector(product, undefined_pairs, _indices(list(range(0, 16, 2))))
                    odd = b.shuffle_vector(product, undefined_pairs, _indices(list(range(1, 16, 2))))
                    total = b.add(sums[r][v], b.add(even, odd))
                    sums[r][v].add_incoming(_indices([0] * 8), before)
                    sums[r][v].add_incoming(total, loop)
                    sums[r][v] = total
            following = b.add(pair, ir.Constant(_I64, 1))
            pair.add_incoming(following, loop)
            b.cbranch(b.icmp_signed("<", following, pairs), loop, done)

            b.position_at_end(done)
            for r in range(rows):
                row = b.add(acc, b.mul(acc_stride, ir.Constant(_I64, r)))
                for v in range(VECTORS):
                    pointer = b.inttoptr(b.add(row, ir.Constant(_I64, 32 * v)), _ACC.as_pointer())
                    b.store(sums[r][v], pointer, align=1)
            return context.get_dummy_value()

        return signature, generate

    return tile


def pack_pairs(weight: np.ndarray) -> np.ndarray:
    """Return int8 ``[N, K]`` as the kernel reads it, ``[N / 16, K / 2, 16, 2]``, padded with zeros."""
    n, k = weight.shape
    padded = np.zeros((-(-n // COLUMNS) * COLUMNS, k + k % 2), np.int8)
    padded[:n, :k] = weight
    blocks = padded.reshape(-1, COLUMNS, padded.shape[1] // 2, 2)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3))


_tile_full = _tile(ROWS)
_tile_one = _tile(1)


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
                _tile_full(q_at + row * k * 2, k * 2, weights, k // 2, out + row * n * 4, n * 4)
                row += ROWS
            while row < bottom:
                _tile_one(q_at + row * k * 2, k * 2, weights, k // 2, out + row * n * 4, n * 4)
                row += 1
