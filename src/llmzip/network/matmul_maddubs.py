"""The ``maddubs`` matmul backend: x86 with AVX2 or AVX-512 but no VNNI.

``vpmaddubsw`` multiplies 16 or more pairs of unsigned by signed bytes and adds each pair up in 16 bits, where it
saturates. Weights of 7 bits cannot make it: stored plus 64 they are 1 to 127, activations are -127 to 127, and
2 * 127 * 127 < 2^15. Two such sums of pairs would overflow, but less 64 times their four activations, they are four
products of 127 * 63, and 4 * 127 * 63 < 2^15: so both are added modulo 2^16 to that correction, and the result is
exact. Then ``vpmaddwd`` by ones adds neighbours in 32 bits, one for eight products: it is half of the work otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from llmzip.jit import jit
from llmzip.network.instructions import HERE
from llmzip.network.tile import ROWS_AT_ONCE, TileKind, load, pack_words, tile

COLUMNS = 32 if HERE.bits == 512 else 16  # of a block: two vectors
QUAD = 4
WORDS = 2  # of a group that have weights
GROUP = QUAD * WORDS
OFFSET = 64  # makes weights positive
PEAK = 63  # of weights
ROW_WORDS = WORDS + 1  # of a group of activations: eight bytes, and two corrections of 16 bits

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


def available() -> bool:
    """Return whether kernels may use the instructions."""
    return HERE.family == "x86" and HERE.bits >= 256


def maddubs_kind(bits: int) -> TileKind:
    """Return how a group is multiplied in vectors of 256 or 512 bits."""
    width = bits // 32
    sums, bytes_, shorts = (ir.VectorType(ir.IntType(32 // n), n * width) for n in (1, 4, 2))
    by_bytes, by_shorts = {
        256: ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
        512: ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
    }[bits]

    def call(b: Any, name: str, result: ir.Type, *args: Any) -> Any:
        kind = ir.FunctionType(result, [each.type for each in args])
        return b.call(b.module.globals.get(name) or ir.Function(b.module, kind, name), args)

    def multiply_add(b: Any, total: Any, weights: list[Any], own: list[Any]) -> Any:
        four = b.bitcast(own[WORDS], shorts)
        for each, word in zip(weights, own, strict=False):
            four = b.add(four, call(b, by_bytes, shorts, each, b.bitcast(word, bytes_)))
        return b.add(total, call(b, by_shorts, sums, four, ir.Constant(shorts, [1] * 2 * width)))

    return TileKind(
        sums,
        COLUMNS // width,
        4 * width,
        load_weights=lambda b, address: load(b, address, bytes_),
        multiply_add=multiply_add,
        weight_words=WORDS,
        words=ROW_WORDS,
    )


# Rows of a tile: as many sums as stay in registers, of which AVX-512 has 32, AVX2 16.
ROWS = 8 if HERE.bits == 512 else 3
_KIND = maddubs_kind(max(HERE.bits, 256))
_tile_full, _tile_4, _tile_2, _tile_1 = (tile(rows, _KIND) for rows in (ROWS, 4, 2, 1))


def pack_octets(weight: np.ndarray) -> np.ndarray:
    """Return int8 ``[N, K]`` as the kernel reads it, uint8 ``[N / COLUMNS, K / 8, 2, COLUMNS, 4]``.

    It is padded with zero weights.
    """
    return (pack_words(weight, COLUMNS, WORDS) + OFFSET).astype(np.uint8)


@intrinsic
def _pack_group(typing_context, q, out):  # noqa: ARG001 - numba counts them
    """Write eight activations, int16 at an address, as words."""

    def generate(context, builder, signature, args):  # noqa: ARG001 - the signature of every generator
        b, (q, out) = builder, args
        own = load(b, q, ir.VectorType(_I16, GROUP))

        def some(vector: Any, indices: list[int]) -> Any:
            undefined = ir.Constant(vector.type, ir.Undefined)
            return b.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(_I32, len(indices)), indices))

        def store(value: Any, address: Any) -> None:
            b.store(value, b.inttoptr(address, value.type.as_pointer()), align=1)

        store(b.trunc(own, ir.VectorType(ir.IntType(8), GROUP)), out)
        pairs = b.add(some(own, [0, 2]), some(own, [1, 3]))
        fours = b.add(pairs, b.add(some(own, [4, 6]), some(own, [5, 7])))
        store(b.mul(fours, ir.Constant(fours.type, [-OFFSET] * 2)), b.add(out, ir.Constant(_I64, GROUP)))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


@jit
def octet_product(q, packed, acc):
    """Write int32 `acc` ``[M, N]`` for int16 `q` ``[M, K]`` and `packed` of :func:`pack_octets`.

    The caller guarantees the shapes: N a multiple of COLUMNS, K of 8 and not 0, all contiguous.
    """
    m, n = acc.shape
    k = q.shape[1]
    groups = k // GROUP
    stride, block_stride = groups * ROW_WORDS * 4, k * COLUMNS
    words = np.empty((m, stride), np.int8)
    q_at, words_at, w_at, acc_at = q.ctypes.data, words.ctypes.data, packed.ctypes.data, acc.ctypes.data
    for group in range(m * groups):
        _pack_group(q_at + group * GROUP * 2, words_at + group * ROW_WORDS * 4)
    for top in range(0, m, ROWS_AT_ONCE):
        bottom = min(top + ROWS_AT_ONCE, m)
        for block in range(packed.shape[0]):
            weights = w_at + block * block_stride
            out = acc_at + block * COLUMNS * 4
            row = top
            while row + ROWS <= bottom:
                _tile_full(words_at + row * stride, stride, 0, weights, 0, groups, out + row * n * 4, n * 4, 0)
                row += ROWS
            if ROWS > 4 and row + 4 <= bottom:
                _tile_4(words_at + row * stride, stride, 0, weights, 0, groups, out + row * n * 4, n * 4, 0)
                row += 4
            if row + 2 <= bottom:
                _tile_2(words_at + row * stride, stride, 0, weights, 0, groups, out + row * n * 4, n * 4, 0)
                row += 2
            if row < bottom:
                _tile_1(words_at + row * stride, stride, 0, weights, 0, groups, out + row * n * 4, n * 4, 0)
    # numba frees an array after its last use, and an address is none: so it lives until the tiles are done.
    words[0, 0] = 0
