"""Sixteen values side by side: `Lanes`, a Numba type of 16 float32 in one vector register.

Arithmetic that treats values alike is written as if for one: `u = e * e / (fixed * maximum(recent, fixed))` is a vector
instruction per operation, in registers, without a loop over arrays that LLVM must first prove apart. Operators,
comparisons (giving `Mask`) and the functions here are all there is; each lane's bits are those of the same scalar
float32 arithmetic. Interpreted, `Lanes` are NumPy arrays, whose operators are the same.
"""

import operator
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from streamlstm.kernels import interpreted
from streamlstm.kernels.compiling import LANES, intrinsic_with, jit
from streamlstm.kernels.vector import I1, VECTOR, Emitter, data


class LanesType(types.Type):
    """16 float32."""

    def __init__(self) -> None:
        super().__init__("Lanes")


class MaskType(types.Type):
    """16 truth values."""

    def __init__(self) -> None:
        super().__init__("Mask")


LANES_TYPE, MASK_TYPE = LanesType(), MaskType()


def _model(kind: type, vector: Any) -> None:
    @register_model(kind)
    class Model(models.PrimitiveModel):
        def __init__(self, manager: Any, type: Any) -> None:
            super().__init__(manager, type, vector)


_model(LanesType, VECTOR)
_model(MaskType, ir.VectorType(I1, LANES))


def _operator(function: Any, result: Any, emit: Callable[[Any, Any, Any], Any]) -> None:
    """Defines `function` of two operands, of which one may be a float32 that all lanes share."""

    class Template(ConcreteTemplate):
        key = function
        cases: ClassVar = [
            signature(result, *pair)
            for pair in ((LANES_TYPE, LANES_TYPE), (LANES_TYPE, types.float32), (types.float32, LANES_TYPE))
        ]

    infer_global(function)(Template)

    def lower(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
        e = Emitter(builder)
        a, b = (
            e.splat(value) if kind == types.float32 else value
            for value, kind in zip(arguments, kinds.args, strict=True)
        )
        return emit(builder, a, b)

    for case in Template.cases:
        lower_builtin(function, *case.args)(lower)


_operator(operator.add, LANES_TYPE, lambda builder, a, b: builder.fadd(a, b))
_operator(operator.sub, LANES_TYPE, lambda builder, a, b: builder.fsub(a, b))
_operator(operator.mul, LANES_TYPE, lambda builder, a, b: builder.fmul(a, b))
_operator(operator.truediv, LANES_TYPE, lambda builder, a, b: builder.fdiv(a, b))
_operator(operator.lt, MASK_TYPE, lambda builder, a, b: builder.fcmp_ordered("<", a, b))
_operator(operator.le, MASK_TYPE, lambda builder, a, b: builder.fcmp_ordered("<=", a, b))
_operator(operator.gt, MASK_TYPE, lambda builder, a, b: builder.fcmp_ordered(">", a, b))
_operator(operator.ge, MASK_TYPE, lambda builder, a, b: builder.fcmp_ordered(">=", a, b))


@lower_builtin(operator.and_, MASK_TYPE, MASK_TYPE)
def _both(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
    return builder.and_(*arguments)


@infer_global(operator.and_)
class _Both(ConcreteTemplate):
    cases: ClassVar = [signature(MASK_TYPE, MASK_TYPE, MASK_TYPE)]


def _of_lanes(emit: Callable[..., Any], *others: Any, result: Any = LANES_TYPE) -> Any:
    return signature(result, LANES_TYPE, *others), lambda context, builder, kinds, arguments: emit(
        Emitter(builder), *arguments
    )


@intrinsic_with(lambda value: np.full(LANES, value, np.float32))
def splat(typing_context, value):
    """All lanes the float32 `value`."""
    return LANES_TYPE(types.float32), lambda context, builder, kinds, arguments: Emitter(builder).splat(arguments[0])


@intrinsic_with(np.sqrt)
def square_root(typing_context, v):
    """Square roots, correctly rounded."""
    return _of_lanes(Emitter.sqrt)


@intrinsic_with(np.abs)
def absolute(typing_context, v):
    """Absolute values."""
    return _of_lanes(Emitter.abs)


@intrinsic_with(np.rint)
def rounded(typing_context, v):
    """The nearest integers; halves to the even one."""
    return _of_lanes(Emitter.round)


@intrinsic_with(interpreted.NUMBERS.log1p)
def log1p(typing_context, v):
    """ln(1 + v) of v >= 0, within 2e-7 absolute and 2 ulp of larger results."""
    return _of_lanes(Emitter.log1p)


@intrinsic_with(np.where)
def where(typing_context, mask, chosen, other):
    """`chosen` in the lanes of the mask, else `other`."""
    return LANES_TYPE(MASK_TYPE, LANES_TYPE, LANES_TYPE), lambda context, builder, kinds, arguments: builder.select(
        *arguments
    )


@intrinsic_with(lambda a, b: np.where(a < b, a, b))
def minimum(typing_context, a, b):
    """The smaller of the two; b where either is NaN."""
    return _of_lanes(lambda e, a, b: e.builder.select(e.builder.fcmp_ordered("<", a, b), a, b), LANES_TYPE)


@intrinsic_with(lambda a, b: np.where(a > b, a, b))
def maximum(typing_context, a, b):
    """The larger of the two; b where either is NaN."""
    return _of_lanes(lambda e, a, b: e.builder.select(e.builder.fcmp_ordered(">", a, b), a, b), LANES_TYPE)


@intrinsic_with(interpreted.load)
def load(typing_context, array, at):
    """16 values of a flat float32 array from element `at` on."""

    def generate(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
        return Emitter(builder).load(data(context, builder, kinds.args[0], arguments[0]), arguments[1])

    return LANES_TYPE(array, types.int64), generate


@intrinsic_with(interpreted.load_halves)
def load_halves(typing_context, array, at):
    """16 float16 as float32; `at` counts float16 of a flat float32 array's memory."""

    def generate(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
        return Emitter(builder).load_half(data(context, builder, kinds.args[0], arguments[0]), arguments[1])

    return LANES_TYPE(array, types.int64), generate


@intrinsic_with(interpreted.store)
def store(typing_context, array, at, v):
    """Writes v to elements `at` to `at + 16` of a flat float32 array."""

    def generate(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
        array, at, v = arguments
        Emitter(builder).store(v, data(context, builder, kinds.args[0], array), at)
        return context.get_dummy_value()

    return types.void(array, types.int64, LANES_TYPE), generate


@intrinsic_with(interpreted.move)
def move(typing_context, source, i, target, j):
    """target[j] = source[i] of flat float32 arrays, without the question whether an index is negative."""

    def generate(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
        source, i, target, j = arguments
        value = builder.load(builder.gep(data(context, builder, kinds.args[0], source), [i]))
        builder.store(value, builder.gep(data(context, builder, kinds.args[2], target), [j]))
        return context.get_dummy_value()

    return types.void(source, types.int64, target, types.int64), generate


@intrinsic_with(lambda row: None)
def prefetch(typing_context, row):
    """Asks for the memory of a flat array, which is read and written soon."""

    def generate(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
        array = context.make_array(kinds.args[0])(context, builder, arguments[0])
        Emitter(builder).prefetch(array.data, builder.mul(array.nitems, array.itemsize))
        return context.get_dummy_value()

    return types.void(row), generate


@jit(inline=True)
def copy_lanes(source, i, target, j, count):
    """Copies source[i : i + count] to target[j : j + count], and up to 15 floats more: what follows is written later."""
    for k in range(0, count, LANES):
        store(target, j + k, load(source, i + k))


@jit(inline=True)
def copy_halves(source, i, target, j, count):
    """Like `copy_lanes` from float16, whose place i counts float32."""
    for k in range(0, count, LANES):
        store(target, j + k, load_halves(source, 2 * i + k))


@jit(inline=True)
def fill_lanes(target, j, count, value):
    """Writes the float32 `value` to target[j : j + count], and up to 15 times more: what follows is written later."""
    for k in range(0, count, LANES):
        store(target, j + k, splat(value))
