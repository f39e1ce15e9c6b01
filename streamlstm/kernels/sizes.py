"""Sizes as compiled code sees them: constants where the signature says so, else memory that no store changes.

`sizes[D]` of an array is read again after each store, and a loop over features is a loop. Of a `Known` it is a constant,
or a load that may be done once: one feature, whose weights are frozen, takes 9 % less time so (H = 32, EPYC, November
2026). Eight features take 1 to 3 % less, and the step of a cell as long as before (I and H told: 1.00, 1.00 and .99 of the
time at (1, 32), (8, 64) and (25, 80)), so these stay general. The kernels are written for either.
"""

from collections.abc import Mapping
from typing import Any

from numba import types
from numba.core.typing.templates import AbstractTemplate, infer, signature
from numba.extending import lower_builtin, models, register_model

from streamlstm.kernels.compiling import intrinsic_with
from streamlstm.kernels.layout import N_FEATURES, N_KNOWN, ONLINE
from streamlstm.kernels.vector import I64, data

ONE_FROZEN = {N_FEATURES: 1, N_KNOWN: 0, ONLINE: 0}
"""Most streams have one feature, and a model's weights."""


class Known(types.Type):
    """An int64 vector of `layout.SIZES`, of which some entries are told by the type."""

    def __init__(self, entries: Mapping[int, int]) -> None:
        self.entries = dict(entries)
        super().__init__(f"Known{sorted(self.entries.items())}")


@register_model(Known)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, I64.as_pointer())


@infer
class _Entry(AbstractTemplate):
    key = "static_getitem"

    def generic(self, arguments: Any, _keywords: Any) -> Any:
        sizes, entry = arguments
        return signature(types.int64, *arguments) if isinstance(sizes, Known) and isinstance(entry, int) else None


@lower_builtin("static_getitem", Known, types.Any)
def _entry(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
    sizes, entry = arguments
    if entry in kinds.args[0].entries:
        return I64(kinds.args[0].entries[entry])
    value = builder.load(builder.gep(sizes, [I64(entry)]))
    value.set_metadata("invariant.load", builder.module.add_metadata([]))
    return value


@intrinsic_with(lambda sizes: sizes)
def unchanging(typing_context, sizes):
    """The vector `sizes`, which nothing changes as long as it is looked at."""
    return Known({})(sizes), lambda context, builder, kinds, arguments: data(
        context, builder, kinds.args[0], arguments[0]
    )
