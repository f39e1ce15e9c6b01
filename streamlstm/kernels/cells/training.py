"""What a cell gives to back-propagation through time: one row of a window forward, and the same row back.

All arrays are flat float32 of B lanes: gates (B, G Hp); kept, extra, h, c, dh and carry (B, Hp); vectors (V, Hp) and their
gradient likewise.

- `forward` finds the gates' sums in `gates` and the old state in h and c; it writes the new state, and leaves in gates,
  kept and extra what `backward` needs.
- `backward` finds in `dh` the gradient of the row's h, in `carry` what the row after it left there. It writes the gradients
  of the sums over the gates, adds those of the vectors, and leaves in `carry` what the row before it needs to know, in `dh`
  the gradient of its h that does not come through the sums.

A cell of two stages has two functions more, before `forward` and after `backward`: the early one forward finds the sums of
the first gates and the old h, and writes `instead`, what the late gates read in place of h; the early one back finds the
gradient of `instead`, writes those of the first gates' sums, and adds to `dh`.
"""

from typing import Any

from numba import types
from numba.np import arrayobj as numba_arrayobj

from streamlstm.kernels.compiling import intrinsic_with
from streamlstm.kernels.vector import I64

arrayobj: Any = numba_arrayobj
_FLOATS = types.CPointer(types.float32)
FORWARD = types.void(*[_FLOATS] * 6, types.int64, types.int64)
BACKWARD = types.void(*[_FLOATS] * 7, types.int64, types.int64)
EARLY_FORWARD = types.void(*[_FLOATS] * 3, types.int64, types.int64)
EARLY_BACKWARD = types.void(*[_FLOATS] * 4, types.int64, types.int64)


@intrinsic_with(lambda pointer, start, size: pointer[start : start + size])
def part(typing_context, pointer, start, size):
    """An array of `size` float32 over a pointer, from element `start` on; it owns nothing."""
    kind = types.Array(types.float32, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, start, size = arguments
        array = context.make_array(kind)(context, builder)
        arrayobj.populate_array(
            array, data=builder.gep(pointer, [start]), shape=[size], strides=[I64(4)], itemsize=I64(4), meminfo=None
        )
        return array._getvalue()

    return kind(pointer, types.int64, types.int64), generate
