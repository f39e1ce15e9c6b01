"""Calls of compiled functions by their address: what stands around them is compiled without them, and once for all cells."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from streamlstm.kernels.arguments import Out, Pool, Records, Setup, Tap
from streamlstm.kernels.compiling import intrinsic_with
from streamlstm.kernels.interpreting import function_at
from streamlstm.kernels.sizes import Known
from streamlstm.kernels.vector import data


def _tuple(kind: type, *fields: Any) -> Any:
    return types.BaseTuple.from_types(fields, kind)


_n, _flat, _rows, _ints = types.int64, types.float32[::1], types.float32[:, ::1], types.int32[::1]
_times, _codes = types.int64[::1], types.uint16[:, ::1]


def score_wave_for(known: Mapping[int, int]) -> Any:
    """The signature of `wave.score_wave` for sizes of which so much is known; all of them are called alike."""
    setup = _tuple(Setup, Known(known), types.float64[::1], _flat, _flat)
    return types.void(_ints, _ints, _n, _n, _n, setup, *_OF_A_BATCH)


_OF_A_BATCH = (
    _tuple(Pool, _rows, types.float64[:, ::1], types.int64[:, ::1]),
    _tuple(Records, _ints, _times, types.float64[:, ::1], _times, _n, _n, _n),
    _tuple(Tap, _rows, _rows, _rows, _codes, _ints),
    _tuple(Out, _rows, _codes, types.float64[:, :, ::1], types.int64[:, ::1]),
    _flat, _ints,
)  # fmt: skip
# By pointer: an array by value is seven words on the stack, which LLVM reads in pairs before they have left the store
# buffer (two calls of 15 ns a record, EPYC, November 2026).
_floats, _doubles = types.CPointer(types.float32), types.CPointer(types.float64)
ABSORB = types.void(_floats, _n, types.float32, types.float64, _doubles)
LIMIT_OF = types.float64(_floats, types.float64, _doubles)
"""Of the functions of a threshold."""


def _emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Calls the address that comes first with the other arguments; an array is followed by the offset of its part."""
    (address, *values), (_, *of) = arguments, signature.args
    passed, at = [], 0
    while at < len(values):
        if isinstance(of[at], types.Array):
            passed.append(builder.gep(data(context, builder, of[at], values[at]), [values[at + 1]]))
            at += 2
        else:
            passed.append(values[at])
            at += 1
    return _call(context, builder, address, passed)


def _call(context: Any, builder: Any, address: Any, passed: Any, result: Any = types.void) -> Any:
    returned = ir.VoidType() if result == types.void else context.get_value_type(result)
    kind = ir.FunctionType(returned, [value.type for value in passed])
    value = builder.call(builder.inttoptr(address, kind.as_pointer()), passed)
    return context.get_dummy_value() if result == types.void else value


def _as_they_are(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    address, *values = arguments
    return _call(context, builder, address, values, signature.return_type)


def _by_pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Calls the address that comes first with the other arguments; of an array, where its data begins."""
    (address, *values), (_, *of) = arguments, signature.args
    passed = [
        data(context, builder, kind, value) if isinstance(kind, types.Array) else value
        for kind, value in zip(of, values, strict=True)
    ]
    return _call(context, builder, address, passed, signature.return_type)


def _interpreted(address: int, *values: Any) -> Any:
    return function_at(address)(*values)


def _interpreted_on_parts(address: int, *values: Any) -> None:
    """What `_emit` does: an array and the offset of its part are one argument."""
    passed, rest = [], iter(values)
    for value in rest:
        passed.append(value.reshape(-1)[next(rest) :] if isinstance(value, np.ndarray) else value)
    function_at(address)(*passed)


@intrinsic_with(_interpreted)
def call_absorb(typing_context, address, row, lesson, score, tail, params):
    """`absorb` of a threshold."""
    return types.void(types.int64, row, types.int64, types.float32, types.float64, params), _by_pointer


@intrinsic_with(lambda *call: np.float64(_interpreted(*call)))
def call_limit(typing_context, address, row, tail, params):
    """`limit` of a threshold."""
    return types.float64(types.int64, row, types.float64, params), _by_pointer


@intrinsic_with(_interpreted)
def call_wave(
    typing_context, address, rows, slots, count, known, fetched, setup, pool, records, tap, out, scratch, seats
):  # fmt: skip
    """`wave.score_wave`; the sizes in `setup` are `unchanging`."""
    return types.void(types.int64, *score_wave_for({}).args), _as_they_are


@intrinsic_with(_interpreted_on_parts)
def call_step(
    typing_context, address, weights, w0, I, H, z, z0, ldz, slots, first, count, state, s0, lds, h0, c0
):  # fmt: skip
    """One step of one layer for rows `first .. first + count` of `slots`; writes h and c of those slots in `state`.

    weights (flat) float32, the layer's panels from w0 on; z (flat) float32, row r at z0 + r * ldz holds the layer's inputs
    and the old h, I + H values; slots int32; state (S, lds) float32 with h at column h0 and c at c0, H rounded up to 16
    columns each (s0 is 0). Every row's bits are independent of the other rows.
    """
    n = types.int64
    return types.void(n, weights, n, n, n, z, n, n, slots, n, n, state, n, n, n, n), _emit


@intrinsic_with(_interpreted_on_parts)
def call_forward(typing_context, address, vectors, v0, gates, g0, kept, k0, extra, x0, h, h0, c, c0, B, Hp):
    """`forward` of `training` on parts of flat arrays."""
    n = types.int64
    return types.void(n, vectors, n, gates, n, kept, n, extra, n, h, n, c, n, n, n), _emit


@intrinsic_with(_interpreted_on_parts)
def call_early_forward(typing_context, address, gates, g0, h, h0, instead, i0, B, Hp):
    """`early_forward` of `training` on parts of flat arrays."""
    n = types.int64
    return types.void(n, gates, n, h, n, instead, n, n, n), _emit


@intrinsic_with(_interpreted_on_parts)
def call_early_backward(typing_context, address, gates, g0, kept, k0, d_instead, i0, dh, h0, B, Hp):
    """`early_backward` of `training` on parts of flat arrays."""
    n = types.int64
    return types.void(n, gates, n, kept, n, d_instead, n, dh, n, n, n), _emit


@intrinsic_with(_interpreted_on_parts)
def call_backward(
    typing_context, address, vectors, v0, gates, g0, kept, k0, extra, x0, dh, h0, carry, c0, out_vectors, o0, B, Hp
):  # fmt: skip
    """`backward` of `training` on parts of flat arrays."""
    n = types.int64
    return types.void(n, vectors, n, gates, n, kept, n, extra, n, dh, n, carry, n, out_vectors, n, n, n), _emit
