"""Tiles: the inner loop that the compiled matmul backends share, written in LLVM's vector language.

A tile of rows x columns of int32 sums stays in registers while a loop streams over k, a *group* at a time: words of
four bytes of activations, each two int16 or four int8. Each step loads the group's weights for all columns, then for
each row multiplies them by the row's group and adds the products up. numba finds no such code in Python loops. All
arithmetic is on integers, so the result is the same on every machine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

ROWS_AT_ONCE = 32  # rows of a product that stay in the first caches while the weights stream past
TILE_ARGUMENTS = 9
WORD = 4  # bytes of activations that are loaded at once, into every lane of a vector

_I32, _I64 = ir.IntType(32), ir.IntType(64)


@dataclass(frozen=True)
class TileKind:
    """How a backend multiplies one group.

    Attributes:
        sums: the type of a vector of int32 sums.
        vectors: vectors in a row of a block of columns.
        weight_bytes: bytes of a word's weights for one vector of columns.
        load_weights: from the builder and an address, the weights of a word for one vector of columns.
        multiply_add: from the builder, the sums, the weights of each word and a row's words (each in every lane of a
            vector like `sums`), the new sums.
        weight_words: words of a group that have weights of their own, one after the other.
        words: words of a group in a row of activations: the same, and what else the backend adds.
        initial_sum: from the builder and the row's number at the address given to the tile, its first sum; 0 if None.
    """

    sums: ir.VectorType
    vectors: int
    weight_bytes: int
    load_weights: Callable[[Any, Any], Any]
    multiply_add: Callable[[Any, Any, list[Any], list[Any]], Any]
    weight_words: int = 1
    words: int = 1
    initial_sum: Callable[[Any, Any], Any] | None = None


def load(builder: Any, address: Any, kind: ir.Type) -> Any:
    """Return the value of type `kind` at an address, which need not be aligned."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _prefetch(builder: Any, address: Any) -> None:
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
    name = "llvm.prefetch.p0"
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(function, [builder.inttoptr(address, pointer), _I32(0), _I32(3), _I32(1)])  # to read, keep, data


def splat(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    """Return a vector that holds `value` in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    indices = ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, undefined, indices)


def emit_tile(b: Any, args: Any, rows: int, kind: TileKind, blocks: int = 1, *, prefetch: bool = False) -> None:
    """Write the instructions of a tile at the builder `b`; arguments as for :func:`tile`."""
    q, q_stride, numbers, weights, block_stride, groups, acc, acc_stride, ahead = args
    columns = [(block, v) for block in range(blocks) for v in range(kind.vectors)]
    row_bytes = kind.vectors * kind.weight_bytes  # of a word's weights for a block

    def at(address: Any, offset: int | Any, count: Any = None) -> Any:
        step = ir.Constant(_I64, offset) if isinstance(offset, int) else offset
        return b.add(address, step if count is None else b.mul(step, ir.Constant(_I64, count)))

    zero = ir.Constant(kind.sums, [0] * kind.sums.count)
    first = [
        splat(b, kind.initial_sum(b, load(b, at(numbers, 4 * r), _I32)), kind.sums) if kind.initial_sum else zero
        for r in range(rows)
    ]
    before, loop, done = b.block, b.append_basic_block("group"), b.append_basic_block("done")
    b.branch(loop)
    b.position_at_end(loop)
    group = b.phi(_I64)
    group.add_incoming(ir.Constant(_I64, 0), before)
    sums = [[b.phi(kind.sums) for _ in columns] for _ in range(rows)]
    here = b.add(weights, b.mul(group, ir.Constant(_I64, kind.weight_words * row_bytes)))
    if prefetch:
        for block in range(blocks):
            _prefetch(b, at(at(here, block_stride, block), ahead))
    here_q = b.add(q, b.mul(group, ir.Constant(_I64, kind.words * WORD)))

    @functools.cache
    def weights_of(v: int) -> list[Any]:
        block, vector = columns[v]
        address = at(at(here, block_stride, block), vector * kind.weight_bytes)
        return [kind.load_weights(b, at(address, word * row_bytes)) for word in range(kind.weight_words)]

    @functools.cache
    def words_of(r: int) -> list[Any]:
        row = at(here_q, q_stride, r)
        return [splat(b, load(b, at(row, word * WORD), _I32), kind.sums) for word in range(kind.words)]

    # What is fewer stays in registers, of the weights and the rows' words; the other is loaded when its turn comes.
    places = [(r, v) for r in range(rows) for v in range(len(columns))]
    if rows * kind.words < len(columns) * kind.weight_words:
        places.sort(key=lambda place: place[1])
    for r, v in places:
        total = kind.multiply_add(b, sums[r][v], weights_of(v), words_of(r))
        sums[r][v].add_incoming(first[r], before)
        sums[r][v].add_incoming(total, loop)
        sums[r][v] = total
    following = b.add(group, ir.Constant(_I64, 1))
    group.add_incoming(following, loop)
    b.cbranch(b.icmp_signed("<", following, groups), loop, done)

    b.position_at_end(done)
    for r in range(rows):
        row = at(acc, acc_stride, r)
        for v in range(len(columns)):
            b.store(sums[r][v], b.inttoptr(at(row, v * 4 * kind.sums.count), kind.sums.as_pointer()), align=1)


def tile(rows: int, kind: TileKind, blocks: int = 1, *, prefetch: bool = False) -> Any:
    """Make an intrinsic that computes `rows` rows of `blocks` blocks of columns.

    A sum waits for the one before: the fewer rows, the more blocks at once keep the processor busy.

    Its arguments are integers: the addresses of the rows' activations and the bytes between them; the address of one
    int32 for each row, if the kind has initial sums; the address of the first block's weights and the bytes between
    blocks; the number of groups, not 0; the address of the sums to write and the bytes between their rows; and, with
    `prefetch`, how many bytes ahead weights are fetched into the cache: few rows wait for memory.
    """

    @intrinsic
    def compute(typing_context, q, q_stride, numbers, weights, block_stride, groups, acc, acc_stride, ahead):  # noqa: ARG001 - numba counts them
        signature = types.void(*[types.intp] * TILE_ARGUMENTS)

        def generate(context, builder, signature, args):  # noqa: ARG001 - the signature of every generator
            emit_tile(builder, args, rows, kind, blocks, prefetch=prefetch)
            return context.get_dummy_value()

        return signature, generate

    return compute


def pack_blocks(weight: np.ndarray, columns: int, group: int) -> np.ndarray:
    """Return a matrix ``[N, K]`` as tiles read it, ``[N / columns, K / group, columns, group]``, padded with zeros."""
    n, k = weight.shape
    padded = np.zeros((-(-n // columns) * columns, -(-k // group) * group), weight.dtype)
    padded[:n, :k] = weight
    blocks = padded.reshape(-1, columns, padded.shape[1] // group, group)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3))


def pack_words(weight: np.ndarray, columns: int, words: int) -> np.ndarray:
    """Return a matrix ``[N, K]`` as tiles read groups of several words of four bytes, padded with zeros.

    Its shape is ``[N / columns, K / (4 * words), words, columns, 4]``.
    """
    blocks = pack_blocks(weight, columns, words * WORD)
    split = blocks.reshape(*blocks.shape[:3], words, WORD)
    return np.ascontiguousarray(split.transpose(0, 1, 3, 2, 4))
