"""Vector instructions for the mixer, in LLVM's portable vector language, and prefetching.

numba does not find them in Python loops over these arrays. All are exact in integers, so that the plain NumPy
lines that stand for them where the compiler is off give the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from llmzip.jit import inlined
from llmzip.kernel_cache import config

WIDTH = 16  # elements at a time
PRODUCT_SHIFT = 6  # of the products in a sum: 64 of them stay within int32
RATE_SHIFT = 18

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_I32, WIDTH)


def _constant(number: int) -> ir.Constant:
    return ir.Constant(_VECTOR, [number] * WIDTH)


def _indices(numbers: list[int]) -> ir.Constant:
    return ir.Constant(_VECTOR, numbers)


class _Loop:
    """Build a loop over `count` elements, WIDTH at a time; `position` counts them."""

    def __init__(self, builder: Any, count: Any):
        self.builder, self.count, self.before = builder, count, builder.block
        self.body, self.done = builder.append_basic_block("vector"), builder.append_basic_block("done")
        builder.branch(self.body)
        builder.position_at_end(self.body)
        self.position = builder.phi(_I64)
        self.position.add_incoming(ir.Constant(_I64, 0), self.before)

    def pointer(self, address: Any) -> Any:
        """Return the pointer to the vector at the position, for an array of int32."""
        offset = self.builder.mul(self.position, ir.Constant(_I64, 4))
        return self.builder.inttoptr(self.builder.add(address, offset), _VECTOR.as_pointer())

    def load(self, address: Any) -> Any:
        """Return the vector at the position of an array of int32."""
        return self.builder.load(self.pointer(address), align=4)

    def end(self) -> None:
        """Close the loop."""
        following = self.builder.add(self.position, ir.Constant(_I64, WIDTH))
        self.position.add_incoming(following, self.body)
        self.builder.cbranch(self.builder.icmp_signed("<", following, self.count), self.body, self.done)
        self.builder.position_at_end(self.done)


def _row(context: Any, builder: Any, kind: Any, array: Any, row: Any) -> Any:
    """Return the address of a row of a contiguous matrix of int32."""
    fields = context.make_array(kind)(context, builder, array)
    columns = builder.extract_value(fields.shape, 1)
    start = builder.mul(builder.mul(row, columns), ir.Constant(_I64, 4))
    return builder.add(builder.ptrtoint(fields.data, _I64), start)


def _first(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return builder.ptrtoint(context.make_array(kind)(context, builder, array).data, _I64)


@intrinsic
def _dot(typing_context: Any, weights: Any, row: Any, inputs: Any, count: Any) -> Any:  # noqa: ARG001 - counted
    signature = types.int64(weights, types.int64, inputs, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _row(context, builder, signature.args[0], args[0], args[1])
        x = _first(context, builder, signature.args[2], args[2])
        loop = _Loop(builder, args[3])
        before = builder.phi(_VECTOR)
        before.add_incoming(_constant(0), loop.before)
        products = builder.ashr(builder.mul(loop.load(w), loop.load(x)), _constant(PRODUCT_SHIFT))
        total = builder.add(before, products)
        before.add_incoming(total, loop.body)
        loop.end()
        half = WIDTH // 2
        while half:
            other = builder.shuffle_vector(total, total, _indices([(i + half) % WIDTH for i in range(WIDTH)]))
            total, half = builder.add(total, other), half // 2
        return builder.sext(builder.extract_element(total, ir.Constant(_I32, 0)), _I64)

    return signature, generate


@intrinsic
def _adjust(typing_context: Any, weights: Any, row: Any, inputs: Any, count: Any, error: Any, bound: Any) -> Any:  # noqa: ARG001
    signature = types.void(weights, types.int64, inputs, types.int64, types.int64, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def splat(value: Any) -> Any:
            undefined = ir.Constant(_VECTOR, ir.Undefined)
            one = builder.insert_element(undefined, builder.trunc(value, _I32), ir.Constant(_I32, 0))
            return builder.shuffle_vector(one, undefined, _constant(0))

        w = _row(context, builder, signature.args[0], args[0], args[1])
        x = _first(context, builder, signature.args[2], args[2])
        errors, most = splat(args[4]), splat(args[5])
        least = builder.sub(_constant(0), most)
        loop = _Loop(builder, args[3])
        rounded = builder.add(builder.mul(loop.load(x), errors), _constant(1 << (RATE_SHIFT - 1)))
        changed = builder.add(loop.load(w), builder.ashr(rounded, _constant(RATE_SHIFT)))
        changed = builder.select(builder.icmp_signed(">", changed, most), most, changed)
        changed = builder.select(builder.icmp_signed("<", changed, least), least, changed)
        builder.store(changed, loop.pointer(w), align=4)
        loop.end()
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:  # noqa: ARG001 - counted
    signature = types.void(array, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = builder.module.globals.get("llvm.prefetch.p0") or ir.Function(
            builder.module, kind, "llvm.prefetch.p0"
        )
        builder.call(function, [builder.bitcast(pointer, byte), *(ir.Constant(_I32, n) for n in (1, 3, 1))])
        return context.get_dummy_value()

    return signature, generate


if config.DISABLE_JIT:

    def dot(weights: Any, row: int, inputs: Any, count: int) -> Any:
        """Return the sum of the products of a row of weights and the inputs, each shifted by PRODUCT_SHIFT."""
        return ((weights[row, :count] * inputs[:count]) >> PRODUCT_SHIFT).sum(dtype=np.int64)

    def adjust(weights: Any, row: int, inputs: Any, count: int, error: int, bound: int) -> None:
        """Add inputs * error / 2^RATE_SHIFT, rounded, to a row of weights, within +-bound."""
        change = (inputs[:count] * np.int32(error) + (1 << (RATE_SHIFT - 1))) >> RATE_SHIFT
        weights[row, :count] = np.clip(weights[row, :count] + change, -bound, bound)

    def prefetch(array: Any, index: int) -> None:
        """Do nothing: only processors prefetch."""

else:

    @inlined
    def dot(weights, row, inputs, count):
        """Return the sum of the products of a row of weights and the inputs, each shifted by PRODUCT_SHIFT.

        Args:
            weights: int32[n, m], contiguous, and `row` one of its rows.
            inputs: int32[m], contiguous; products must stay within int32.
            count: the number of elements, a multiple of WIDTH.
        """
        return _dot(weights, np.int64(row), inputs, np.int64(count))

    @inlined
    def adjust(weights, row, inputs, count, error, bound):
        """Add inputs * error / 2^RATE_SHIFT, rounded, to a row of weights, within +-bound; products as for `dot`."""
        _adjust(weights, np.int64(row), inputs, np.int64(count), np.int64(error), np.int64(bound))

    @inlined
    def prefetch(array, index):
        """Prefetch the cache line of an element of a contiguous array; `index` counts the elements of all its rows."""
        _prefetch(array, np.int64(index))
