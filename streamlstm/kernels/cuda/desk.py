"""The desk: one int64 vector that says where all arrays of a detector lie on the device, and how large they are.

A launch with one array costs 6 us, with sixteen 30 us: kernels take the desk's address, and make their arrays of those
that lie there.
"""

from math import prod
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from llvmlite import ir
from numba.core import types

from streamlstm.kernels.compiling import intrinsic_with

(
    SIZES, PARAMS, USUAL, WEIGHTS, STATE, STATS, MARKS, ORDER, SLOTS, TIME, X, ROW, VALUES, CODES, DETAILS, EPISODES,
    TAKEN, INPUTS, REGRESSORS, NETWORK, PREDICTION, BLOCKS,
    LENGTH_OF_SIZES, LENGTH_OF_PARAMS, LENGTH_OF_WEIGHTS, STREAMS, RECORDS, WIDEST, SOURCE, DETAIL, ENTRIES, LENGTH,
) = range(32)  # fmt: skip
"""Addresses; then lengths: of the vectors, rows of the pool, records of the batch, rows that scratch has place for; then
the number of the records' source, whether all want detail, float32 values of a record's block."""

ADDRESS_BITS = 32
ARRAYS: Any = WeakValueDictionary()
"""Under the simulator: flat arrays by number; an address is the number, and in its low bits the byte."""


def _simulated(address: int, dtype: Any, *shape: int) -> Any:
    of, first = ARRAYS[address >> ADDRESS_BITS].view(np.uint8), address & ((1 << ADDRESS_BITS) - 1)
    width = np.dtype(dtype).itemsize
    if len(shape) == 1:  # of which a kernel may not know how long it is
        shape = (min(shape[0], (len(of) - first) // width),)
    return of[first : first + prod(shape) * width].view(dtype).reshape(shape)


def _array(context: Any, builder: Any, kind: Any, address: Any, shape: list[Any]) -> Any:
    """A C-contiguous array at an address in the device's memory."""
    array = context.make_array(kind)(context, builder)
    width = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    strides: list[Any] = []
    size = ir.Constant(ir.IntType(64), width)
    for length in reversed(shape):
        strides.insert(0, size)
        size = builder.mul(size, length)
    context.populate_array(
        array,
        data=builder.addrspacecast(
            builder.inttoptr(address, ir.PointerType(array.data.type.pointee, addrspace=1)), array.data.type
        ),
        shape=shape,
        strides=strides,
        itemsize=ir.Constant(ir.IntType(64), width),
        meminfo=None,
    )
    return array._getvalue()


def _emit(dtype: Any, dimensions: int) -> Any:
    kind = types.Array(dtype, dimensions, "C")
    n = types.int64
    return kind(n, *[n] * dimensions), lambda context, builder, signature, arguments: _array(
        context, builder, kind, arguments[0], list(arguments[1:])
    )


def _vector(dtype: Any) -> Any:
    @intrinsic_with(lambda address, a: _simulated(address, str(dtype), a))
    def vector(typing_context, address, a):
        return _emit(dtype, 1)

    return vector


def _matrix(dtype: Any) -> Any:
    @intrinsic_with(lambda address, a, b: _simulated(address, str(dtype), a, b))
    def matrix(typing_context, address, a, b):
        return _emit(dtype, 2)

    return matrix


@intrinsic_with(lambda address, a, b, c: _simulated(address, "float64", a, b, c))
def doubles_3(typing_context, address, a, b, c):
    """An array (a, b, c) of float64 at an address."""
    return _emit(types.float64, 3)


floats, doubles, ints, longs = (_vector(of) for of in (types.float32, types.float64, types.int32, types.int64))
"""Vectors (a) at an address."""
floats_2, doubles_2, longs_2, shorts_2 = (
    _matrix(of) for of in (types.float32, types.float64, types.int64, types.uint16)
)
"""Matrices (a, b) at an address."""
