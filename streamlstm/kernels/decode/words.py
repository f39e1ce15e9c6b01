"""Eight bytes of text at a time, and the few machine operations on 64 bits that Python has no word for.

A byte array is read as little-endian words, as on every host that Numba compiles for. `load` and `store` do not know the
bounds of their array: the caller keeps `at + 8` inside the span that it was given.
"""

import numpy as np
from llvmlite import ir
from numba import types

from streamlstm.kernels.compiling import intrinsic_with, jit
from streamlstm.kernels.vector import I64, data

I128 = ir.IntType(128)
_TRUE = ir.Constant(ir.IntType(1), 1)


def _address(context, builder, kind, array, at):
    return builder.bitcast(builder.gep(data(context, builder, kind, array), [at]), I64.as_pointer())


def _interpreted_store(value, array, at):
    array[at : at + 8].view(np.uint64)[0] = value


@intrinsic_with(lambda array, at: array[at : at + 8].view(np.uint64)[0])
def _load(typing_context, array, at):
    def emit(context, builder, signature, args):
        value = builder.load(_address(context, builder, signature.args[0], args[0], args[1]))
        value.align = 1
        return value

    return types.uint64(array, types.int64), emit


@intrinsic_with(_interpreted_store)
def _store(typing_context, value, array, at):
    def emit(context, builder, signature, args):
        builder.store(args[0], _address(context, builder, signature.args[1], args[1], args[2])).align = 1
        return context.get_dummy_value()

    return types.void(types.uint64, array, types.int64), emit


@intrinsic_with(lambda word: (int(word) & -int(word)).bit_length() - 1)
def trailing_zeros(typing_context, word):
    """Zero bits below the lowest one of a uint64 that is not 0, int64."""
    return types.int64(types.uint64), lambda context, builder, signature, args: builder.cttz(args[0], _TRUE)


@intrinsic_with(lambda word: 64 - int(word).bit_length())
def leading_zeros(typing_context, word):
    """Zero bits above the highest one of a uint64 that is not 0, int64."""
    return types.int64(types.uint64), lambda context, builder, signature, args: builder.ctlz(args[0], _TRUE)


@intrinsic_with(lambda a, b: np.uint64(int(a) * int(b) >> 64))
def product_high(typing_context, a, b):
    """The upper 64 of the 128 bits of a product of two uint64."""

    def emit(context, builder, signature, args):
        wide = builder.mul(builder.zext(args[0], I128), builder.zext(args[1], I128))
        return builder.trunc(builder.lshr(wide, ir.Constant(I128, 64)), I64)

    return types.uint64(types.uint64, types.uint64), emit


@intrinsic_with(lambda bits: np.uint64(bits).view(np.float64))
def float64_of(typing_context, bits):
    """The float64 with the bits of a uint64."""
    return types.float64(types.uint64), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.DoubleType()
    )


@jit(inline=True)
def byte(array, at):
    """Byte `at` of array uint8, at >= 0.

    An unsigned index is not compared with 0 first: 88 instead of 105 ns a record of 51 bytes (Xeon, 2026-11-21).
    """
    return array[np.uint64(at)]


@jit(inline=True)
def load(array, at):
    """The eight bytes of array uint8 from `at` on, uint64, the first one lowest."""
    return _load(array, np.int64(at))


@jit(inline=True)
def copy(array, start, end, out, at):
    """Writes bytes start .. end to `out` from `at` on and returns the place after them."""
    while end - start >= 8:
        _store(load(array, start), out, np.int64(at))
        start += 8
        at += 8
    while start < end:
        out[at] = array[start]
        start += 1
        at += 1
    return at
