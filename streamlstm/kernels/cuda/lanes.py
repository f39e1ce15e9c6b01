"""One value where the CPU has a vector of 16: the twins of `kernels.lanes` and of the places of a `kernels.block`.

A thread of a device scores one record, so the loops over vectors become loops over values, and arithmetic on lanes is
float32 arithmetic. A block's scratch is strided here: value k of neighbouring records lies side by side.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils as numba_cgutils
from numba.core import types

from streamlstm.kernels import block, columns, interpreted, lanes
from streamlstm.kernels.arithmetic import MAGIC, Arithmetic
from streamlstm.kernels.compiling import intrinsic_with
from streamlstm.kernels.cuda.compiling import device
from streamlstm.kernels.layout import PARTS
from streamlstm.kernels.vector import FLOAT, I32, Emitter

cgutils: Any = numba_cgutils
CONSTANTS = {"LANES": 1, "ENTRIES": PARTS}
"""Of the modules of the CPU's kernels, where they speak of vectors."""


class Scalar(Emitter):
    """Emits operations on single float32, always with a fused multiply-add."""

    converts_halves = False  # what LLVM would call for it is not there

    def __init__(self, builder: Any) -> None:
        super().__init__(builder, 1)

    def _of(self, kind: Any) -> Any:
        return kind

    def constant(self, value: float) -> Any:
        """The float32 nearest to `value`."""
        return ir.Constant(FLOAT, value)

    def integers(self, value: int) -> Any:
        """An int32."""
        return ir.Constant(I32, value)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once."""
        return self.builder.fma(a, b, c)


class Fused(interpreted.Numbers):
    """What `Scalar` emits, on NumPy's numbers."""

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once."""
        return interpreted.fused(a, b, c)


NUMBERS: Arithmetic = Fused()


@intrinsic_with(NUMBERS.fma)
def fma(typing_context, a, b, c):
    """a * b + c of float32, rounded once."""
    return types.float32(
        types.float32, types.float32, types.float32
    ), lambda context, builder, signature, arguments: Scalar(builder).fma(*arguments)


@intrinsic_with(NUMBERS.log1p)
def _log1p(typing_context, v):
    """ln(1 + v) of v >= 0."""
    return types.float32(types.float32), lambda context, builder, signature, arguments: Scalar(builder).log1p(
        *arguments
    )


@intrinsic_with(np.sqrt)
def square_root(typing_context, v):
    """The square root of a float, correctly rounded."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        kind, name = ir.FunctionType(value.type, [value.type]), f"llvm.sqrt.f{v.bitwidth}"
        return builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), [value])

    return v(v), generate


def _place(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Address of element `at` of a vector, which may be strided, without the question whether `at` is negative."""
    made = context.make_array(kind)(context, builder, array)
    if kind.layout == "C":
        return builder.gep(made.data, [at])
    (stride,) = cgutils.unpack_tuple(builder, made.strides, 1)
    first = builder.bitcast(made.data, ir.IntType(8).as_pointer())
    return builder.bitcast(builder.gep(first, [builder.mul(at, stride)]), made.data.type)


@intrinsic_with(lambda array, at: array[at])
def load(typing_context, array, at):
    """Element `at` of a vector; seven integer instructions less than its index takes."""
    return array.dtype(array, types.int64), lambda context, builder, signature, arguments: builder.load(
        _place(context, builder, signature.args[0], *arguments)
    )


def _stored(array, at, v):
    array[at] = v


@intrinsic_with(_stored)
def store(typing_context, array, at, v):
    """Writes v to element `at` of a vector."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, at, v = arguments
        builder.store(v, _place(context, builder, signature.args[0], array, at))
        return context.get_dummy_value()

    return types.void(array, types.int64, array.dtype), generate


def _same(v):
    return v


def _abs(v):
    return abs(v)


def _rounded(v):
    return (v + _MAGIC) - _MAGIC


def _where(mask, chosen, other):
    return chosen if mask else other


def _minimum(a, b):
    return a if a < b else b


def _maximum(a, b):
    return a if a > b else b


def _move(source, i, target, j):
    store(target, j, load(source, i))


def _get(of, name, at):
    return load(of.values, name * of.stride + at)


def _put(of, name, at, value):
    store(of.values, name * of.stride + at, value)


def _entry(of, name, at):
    return load(of.values, of.at_entries + name * PARTS + at)


def _set_entry(of, name, at, value):
    store(of.values, of.at_entries + name * PARTS + at, value)


def _never(of, state, slots, column):
    """Of `columns`, which turn vectors of more than one value."""


_MAGIC = np.float32(MAGIC)
TWINS: dict[Any, Any] = {
    twin_of: device(function, inline=True)
    for twin_of, function in (
        (columns.read_columns, _never), (columns.write_columns, _never),
        (lanes.move, _move), (lanes.splat, _same), (lanes.absolute, _abs),
        (lanes.rounded, _rounded), (lanes.where, _where), (lanes.minimum, _minimum), (lanes.maximum, _maximum),
        (block.get, _get), (block.element, _get), (block.put, _put), (block.set_element, _put),
        (block.entries, _entry), (block.entry, _entry), (block.set_entries, _set_entry), (block.set_entry, _set_entry),
    )
} | {
    lanes.load: load, lanes.store: store, lanes.log1p: _log1p, lanes.square_root: square_root, np.sqrt: square_root
}  # fmt: skip
