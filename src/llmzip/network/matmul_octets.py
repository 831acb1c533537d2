"""The ``maddubs`` and ``sdot`` matmul backends: eight products of bytes for each sum at once.

On AArch64 two ``sdot`` do that. They do not saturate: sums of up to 65536 products of 8 by 8 bits stay within int32.

On x86 with AVX2 or AVX-512 but no VNNI, ``vpmaddubsw`` multiplies pairs of unsigned by signed bytes and adds each pair
up in 16 bits, where it saturates. Weights of 7 bits cannot make it: stored plus 64 they are 1 to 127, activations are
-127 to 127, and 2 * 127 * 127 < 2^15. Two sums of pairs may overflow; less 64 times their four activations they are
four products of 127 by 63, and 4 * 127 * 63 < 2^15. So both are added modulo 2^16 to that correction, which makes the
result exact, and ``vpmaddwd`` by ones adds neighbours up in 32 bits once for eight products, not for four.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from llmzip.jit import jit
from llmzip.network.instructions import HERE
from llmzip.network.tile import ROWS_AT_ONCE, WORD, TileKind, load, pack_words, tile

WORDS = 2  # of a group that have weights
OCTET = WORDS * WORD
BLOCKS = 4  # at once with one row: a sum waits for the one before

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


def _call(b: Any, name: str, result: ir.Type, *args: Any) -> Any:
    kind = ir.FunctionType(result, [each.type for each in args])
    return b.call(b.module.globals.get(name) or ir.Function(b.module, kind, name), args)


def maddubs_kind(bits: int) -> TileKind:
    """Return how a group is multiplied in vectors of 256 or 512 bits. Rows have a third word, the correction."""
    width = bits // 32
    sums, shorts, bytes_ = (ir.VectorType(ir.IntType(32 // n), n * width) for n in (1, 2, 4))
    by_bytes, by_shorts = {
        256: ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
        512: ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
    }[bits]
    ones = ir.Constant(shorts, [1] * 2 * width)

    def multiply_add(b: Any, total: Any, weights: list[Any], own: list[Any]) -> Any:
        *words, fours = own
        fours = b.bitcast(fours, shorts)
        for weight, word in zip(weights, words, strict=True):
            fours = b.add(fours, _call(b, by_bytes, shorts, weight, b.bitcast(word, bytes_)))
        return b.add(total, _call(b, by_shorts, sums, fours, ones))

    return TileKind(
        sums,
        vectors=2,
        weight_bytes=WORD * width,
        load_weights=lambda b, address: load(b, address, bytes_),
        multiply_add=multiply_add,
        weight_words=WORDS,
        words=WORDS + 1,
    )


def sdot_kind() -> TileKind:
    """Return how a group is multiplied by AArch64's dot products."""
    sums, bytes_ = ir.VectorType(_I32, 4), ir.VectorType(ir.IntType(8), 16)

    def multiply_add(b: Any, total: Any, weights: list[Any], own: list[Any]) -> Any:
        for weight, word in zip(weights, own, strict=True):
            total = _call(b, "llvm.aarch64.neon.sdot.v4i32.v16i8", sums, total, weight, b.bitcast(word, bytes_))
        return total

    return TileKind(
        sums,
        vectors=4,
        weight_bytes=WORD * 4,
        load_weights=lambda b, address: load(b, address, bytes_),
        multiply_add=multiply_add,
        weight_words=WORDS,
        words=WORDS,
    )


# The backend here, None where there are neither instructions. OFFSET makes the weights positive; PEAK is the largest;
# tiles have ROWS rows: as many sums as stay in registers.
NAME: str | None = None
if HERE.family == "aarch64":
    OFFSET, PEAK, ROWS = 0, 127, 4
    _KIND = sdot_kind()
    if HERE.dot_bits:
        NAME = "sdot"
else:
    OFFSET, PEAK, ROWS = 64, 63, 8 if HERE.bits == 512 else 3
    _KIND = maddubs_kind(max(HERE.bits, 256))
    if HERE.family == "x86" and HERE.bits >= 256:
        NAME = "maddubs"
COLUMNS = _KIND.vectors * _KIND.sums.count  # of a block
_tile_full, _tile_4, _tile_2, _tile_1 = (tile(rows, _KIND) for rows in (ROWS, 4, 2, 1))
_wide_1 = tile(1, _KIND, BLOCKS)


def pack_octets(weight: np.ndarray) -> np.ndarray:
    """Return int8 ``[N, K]`` as the kernel reads it, ``[N / COLUMNS, K / 8, 2, COLUMNS, 4]``, padded with zeros.

    Its bytes are unsigned where weights have an offset.
    """
    packed = pack_words(weight, COLUMNS, WORDS)
    return (packed + OFFSET).astype(np.uint8) if OFFSET else packed


@intrinsic
def _pack_group(typing_context, q, out):  # noqa: ARG001 - numba counts them
    """Write eight activations, int16 at an address, as the words of a group."""

    def generate(context, builder, signature, args):  # noqa: ARG001 - the signature of every generator
        b, (q, out) = builder, args
        own = load(b, q, ir.VectorType(_I16, OCTET))

        def some(vector: Any, indices: list[int]) -> Any:
            chosen = ir.Constant(ir.VectorType(_I32, len(indices)), indices)
            return b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), chosen)

        def store(value: Any, address: Any) -> None:
            b.store(value, b.inttoptr(address, value.type.as_pointer()), align=1)

        store(b.trunc(own, ir.VectorType(ir.IntType(8), OCTET)), out)
        if OFFSET:  # takes off what it adds to the first and to the second pairs of both words
            wide = ir.VectorType(_I32, OCTET)
            products = b.mul(b.sext(own, wide), ir.Constant(wide, [-OFFSET] * OCTET))
            pairs = b.add(some(products, [0, 2, 4, 6]), some(products, [1, 3, 5, 7]))
            fours = b.add(some(pairs, [0, 1]), some(pairs, [2, 3]))
            store(b.trunc(fours, ir.VectorType(_I16, 2)), b.add(out, ir.Constant(_I64, OCTET)))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


GROUP_BYTES = _KIND.words * WORD  # of activations


@jit
def octet_product(q, packed, acc):
    """Write int32 `acc` ``[M, N]`` for int16 `q` ``[M, K]`` and `packed` of :func:`pack_octets`.

    The caller guarantees the shapes: N a multiple of COLUMNS, K of 8 and not 0, all contiguous.
    """
    m, n = acc.shape
    blocks, groups = packed.shape[0], packed.shape[1]
    wide, block_stride = blocks - blocks % BLOCKS, groups * OCTET * COLUMNS
    stride, out_stride = groups * GROUP_BYTES, n * 4
    words = np.empty((m, stride), np.int8)
    q_at, words_at, w_at, acc_at = q.ctypes.data, words.ctypes.data, packed.ctypes.data, acc.ctypes.data
    for group in range(m * groups):
        _pack_group(q_at + group * OCTET * 2, words_at + group * GROUP_BYTES)
    for top in range(0, m, ROWS_AT_ONCE):
        bottom = min(top + ROWS_AT_ONCE, m)
        left = (bottom - top) % ROWS
        for block in range(blocks):
            weights, out = w_at + block * block_stride, acc_at + block * COLUMNS * 4
            for row in range(top, bottom - left, ROWS):
                at, to = words_at + row * stride, out + row * out_stride
                _tile_full(at, stride, 0, weights, 0, groups, to, out_stride, 0)
            if ROWS > 4 and left >= 4:
                at, to = words_at + (bottom - left) * stride, out + (bottom - left) * out_stride
                _tile_4(at, stride, 0, weights, 0, groups, to, out_stride, 0)
            if left % 4 >= 2:
                at, to = words_at + (bottom - left % 4) * stride, out + (bottom - left % 4) * out_stride
                _tile_2(at, stride, 0, weights, 0, groups, to, out_stride, 0)
        if left % 2:
            at, to = words_at + (bottom - 1) * stride, acc_at + (bottom - 1) * out_stride
            for block in range(0, wide, BLOCKS):
                weights, out = w_at + block * block_stride, to + block * COLUMNS * 4
                _wide_1(at, stride, 0, weights, block_stride, groups, out, out_stride, 0)
            for block in range(wide, blocks):
                weights, out = w_at + block * block_stride, to + block * COLUMNS * 4
                _tile_1(at, stride, 0, weights, 0, groups, out, out_stride, 0)
    # numba frees an array after its last use, and an address is none: so it lives until the tiles are done.
    words[0, 0] = 0
