"""Calls of a cell's compiled functions by their address: the kernels around them are compiled once for all cells."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from streamlstm.kernels.vector import data


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
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in passed])
    builder.call(builder.inttoptr(address, kind.as_pointer()), passed)
    return context.get_dummy_value()


@intrinsic
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


@intrinsic
def call_forward(typing_context, address, vectors, v0, gates, g0, kept, k0, extra, x0, h, h0, c, c0, B, Hp):
    """`forward` of `training` on parts of flat arrays."""
    n = types.int64
    return types.void(n, vectors, n, gates, n, kept, n, extra, n, h, n, c, n, n, n), _emit


@intrinsic
def call_backward(
    typing_context, address, vectors, v0, gates, g0, kept, k0, extra, x0, dh, h0, carry, c0, out_vectors, o0, B, Hp
):  # fmt: skip
    """`backward` of `training` on parts of flat arrays."""
    n = types.int64
    return types.void(n, vectors, n, gates, n, kept, n, extra, n, dh, n, carry, n, out_vectors, n, n, n), _emit
