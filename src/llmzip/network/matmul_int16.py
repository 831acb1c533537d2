"""The ``int16`` matmul backend: pairs of neighbouring k, ``acc += q[k] * w[k] + q[k+1] * w[k+1]`` for all columns.

On x86 LLVM turns the pattern into one ``vpmaddwd`` per register, twice the work of a float32 multiply-add, or with VNNI
into ``vpdpwssd``; on other machines into what they have. Activations may have 12 bits and weights 8: sums of up to 8192
products stay within int32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from llmzip.jit import jit
from llmzip.kernel_cache import config
from llmzip.network.instructions import HERE
from llmzip.network.tile import ROWS_AT_ONCE, TileKind, load, pack_blocks, tile

COLUMNS = 16  # of a block
PAIR = 2
SHORT = 2048  # bytes of a block: of shorter ones the next are fetched ahead, of longer ones what is AHEAD
AHEAD = 1024
_TYPES = ((32, 1), (8, PAIR), (16, PAIR), (32, PAIR))  # bits, and entries for each sum

# A block is one vector of 512 bits where the CPU has AVX-512, else two of 256. The tiles are the best of those tried
# (docs/experiments/2026-11-23-matmul-backends.md, docs/experiments/2026-11-27-pretrained.md).
_WIDE = HERE.bits == 512
ROWS = 8 if _WIDE else 4


def pair_kind(family: str, bits: int) -> TileKind:
    """Return how a group is multiplied by processors of a family, on x86 in vectors of up to 512 bits."""
    width = 16 if bits == 512 else 8
    sums, bytes_, shorts, wide = (ir.VectorType(ir.IntType(n), count * width) for n, count in _TYPES)
    shorter = ir.VectorType(ir.IntType(16), width)

    def some(b: Any, vector: Any, first: int, step: int) -> Any:
        indices = ir.Constant(sums, [first + step * i for i in range(width)])
        return b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), indices)

    def load_weights(b: Any, address: Any) -> Any:
        return b.sext(load(b, address, bytes_), shorts)

    def multiply_add(b: Any, total: Any, weights: list[Any], own: list[Any]) -> Any:
        product = b.mul(b.sext(b.bitcast(own[0], shorts), wide), b.sext(weights[0], wide))
        return b.add(total, b.add(some(b, product, 0, PAIR), some(b, product, 1, PAIR)))

    def load_apart(b: Any, address: Any) -> Any:
        pairs = load(b, address, bytes_)
        return [b.sext(some(b, pairs, i, PAIR), shorter) for i in range(PAIR)]

    def multiply_add_apart(b: Any, total: Any, weights: list[Any], own: list[Any]) -> Any:
        """Multiply and add in 32 bits at once, as AArch64 does ("smlal"), one of the pair after the other."""
        for i, each in enumerate(weights[0]):
            value = some(b, b.bitcast(own[0], shorts), i, 0)
            total = b.add(total, b.mul(b.sext(value, sums), b.sext(each, sums)))
        return total

    apart = family == "aarch64"
    return TileKind(
        sums,
        COLUMNS // width,
        PAIR * width,
        load_weights=load_apart if apart else load_weights,
        multiply_add=multiply_add_apart if apart else multiply_add,
    )


# Rows of a tile and blocks at once: as many sums as the registers hold, or as the processor works on at a time.
_KIND = pair_kind(HERE.family, HERE.bits)
_BLOCKS = 4 if _WIDE else 2
_tile_full, _tile_4, _tile_3, _tile_2, _tile_1 = (tile(rows, _KIND) for rows in (ROWS, 4, 3, 2, 1))
_wide_3, _wide_2, _wide_1 = (tile(rows, _KIND, _BLOCKS, prefetch=True) for rows in (3, 2, 1))


def pack_pairs(weight: np.ndarray) -> np.ndarray:
    """Return int8 ``[N, K]`` as the kernel reads it, ``[N / 16, K / 2, 16, 2]``, padded with zeros."""
    return pack_blocks(weight, COLUMNS, PAIR)


@jit
def pair_tiles(rows, q_at, q_stride, w_at, block_stride, blocks, groups, acc_at, acc_stride):
    """Write the products of `rows` rows of int16 with `blocks` blocks of columns; addresses, and strides in bytes.

    The caller guarantees that all is where it says; `groups` pairs of k, not 0, are multiplied and summed.
    """
    for top in range(0, rows, ROWS_AT_ONCE):
        bottom = min(top + ROWS_AT_ONCE, rows)
        left = (bottom - top) % ROWS
        full = bottom - left
        for block in range(blocks):
            weights = w_at + block * block_stride
            out = acc_at + block * COLUMNS * 4
            for row in range(top, full, ROWS):
                q = q_at + row * q_stride
                _tile_full(q, q_stride, 0, weights, block_stride, groups, out + row * acc_stride, acc_stride, 0)
            if ROWS > 4 and left >= 4:
                q = q_at + full * q_stride
                _tile_4(q, q_stride, 0, weights, block_stride, groups, out + full * acc_stride, acc_stride, 0)
        last = left % 4
        if last:
            row = bottom - last
            q, acc = q_at + row * q_stride, acc_at + row * acc_stride
            few_rows(last, q, q_stride, w_at, block_stride, blocks, groups, acc, acc_stride)


@jit
def few_rows(rows, q, q_stride, weights, block_stride, blocks, groups, acc, acc_stride):
    """Write the products of 1 to 3 rows, as :func:`pair_tiles`."""
    wide = blocks - blocks % _BLOCKS
    step, out_step = block_stride * _BLOCKS, COLUMNS * 4 * _BLOCKS
    ahead = step if block_stride <= SHORT else AHEAD
    for i in range(wide // _BLOCKS):
        w, out = weights + i * step, acc + i * out_step
        if rows == 3:
            _wide_3(q, q_stride, 0, w, block_stride, groups, out, acc_stride, ahead)
        elif rows == 2:
            _wide_2(q, q_stride, 0, w, block_stride, groups, out, acc_stride, ahead)
        else:
            _wide_1(q, q_stride, 0, w, block_stride, groups, out, acc_stride, ahead)
    for block in range(wide, blocks):
        w, out = weights + block * block_stride, acc + block * COLUMNS * 4
        if rows == 3:
            _tile_3(q, q_stride, 0, w, block_stride, groups, out, acc_stride, 0)
        elif rows == 2:
            _tile_2(q, q_stride, 0, w, block_stride, groups, out, acc_stride, 0)
        else:
            _tile_1(q, q_stride, 0, w, block_stride, groups, out, acc_stride, 0)


if config.DISABLE_JIT:

    def part_product(rows: int, q: Any, packed: Any, blocks: int, groups: int, acc: Any) -> None:
        """Write the products of `rows` rows with a part of a packed matrix."""
        weights = packed[:blocks, :groups].transpose(0, 2, 1, 3).reshape(blocks * COLUMNS, groups * PAIR)
        # Whole numbers below 2^53: exact in any order.
        acc[:rows, : blocks * COLUMNS] = q[:rows, : groups * PAIR].astype(float) @ weights.T.astype(float)

else:

    @jit
    def part_product(rows, q, packed, blocks, groups, acc):
        """Write the products of `rows` rows with a part of a packed matrix.

        Args:
            rows: the number of rows, the first of `q` and `acc`.
            q: int16[M, K or more].
            packed: int8[N / 16, K / 2, 16, 2].
            blocks: the number of blocks of columns that are multiplied, the first of `packed`.
            groups: the number of pairs of k that are multiplied, not 0, the first of each block.
            acc: int32[M, blocks * 16 or more], written.
        """
        block = packed.shape[1] * PAIR * COLUMNS
        q_at, w_at, acc_at = q.ctypes.data, packed.ctypes.data, acc.ctypes.data
        pair_tiles(rows, q_at, q.shape[1] * 2, w_at, block, blocks, groups, acc_at, acc.shape[1] * 4)


@jit
def pair_product(q, packed, acc):
    """Write int32 `acc` ``[M, N]`` for int16 `q` ``[M, K]`` and int8 `packed` ``[N / 16, K / 2, 16, 2]``.

    The caller guarantees the shapes: N a multiple of 16, K even and not 0, all contiguous.
    """
    part_product(len(q), q, packed, packed.shape[0], packed.shape[1], acc)
