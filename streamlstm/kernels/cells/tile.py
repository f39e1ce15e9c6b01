"""The step of a recurrent cell for many streams: matrix product and activations as one tile of vector code.

| letter | size |
|---|---|
| I, H | inputs of the layer, hidden units |
| K | I + H, the inner sum |
| G | gates: sums that a unit needs, each of its own column of the weights |
| U | units of a panel: one vector register of them |
| P | panels: H / U, rounded up |

Weights of a layer are P panels after one another, each (1 + K, G U) float32: the bias, then a row per k; then the cell's
further vectors, U values each. Units beyond H have zero weights and stay exactly zero.
"""

from collections.abc import Callable, Sequence
from typing import Any

from numba import types
from numba.core import cgutils as numba_cgutils
from numba.extending import intrinsic

from streamlstm.kernels.compiling import HAS_AVX512, HAS_FMA, LANES
from streamlstm.kernels.vector import I64, Emitter

cgutils: Any = numba_cgutils
_FLOATS, _INTS = types.CPointer(types.float32), types.CPointer(types.int32)
STEP = types.void(
    _FLOATS, types.int64, types.int64, _FLOATS, types.int64, _INTS, types.int64, _FLOATS, types.int64, types.int64, types.int64
)  # fmt: skip
"""Of a step: weights, I, H, z, ldz, slots, count, state, lds, h0, c0; see `calls.call_step`."""
UNITS = LANES if HAS_AVX512 else LANES // 2
"""Units of a panel. With 32 registers of 16 lanes, 24 accumulators, 4 weights and a broadcast fill 29. With 16 registers of
8 lanes, 8 accumulators (two rows of an LSTM), 4 weights and 2 broadcasts fill 14; 12 spill (1.7 times the time at H = 128),
and one row of 16 units reads every weight for itself (1.6 times, EPYC, November 2026)."""
_ACCUMULATORS = 24 if HAS_AVX512 else 8 if HAS_FMA else 4

# Beyond +-20 a sigmoid differs from 0 or 1 by less than 2.1e-9, a tanh of half that argument rounds to +-1; and a product
# of three exponentials stays below 2^87, far from an overflow.
SATURATION = 20.0


class Units:
    """The units of a panel for one stream: the sums of their gates, their old state, and what the cell makes of them."""

    def __init__(
        self, e: Emitter, gates: list[Any], state: Any, at_h: Any, at_c: Any, weights: Any, further: Any
    ) -> None:
        self.e, self.gates = e, gates
        self._state, self._h, self._c, self._weights, self._further = state, at_h, at_c, weights, further

    def h(self) -> Any:
        """The old output."""
        return self.e.load(self._state, self._h)

    def c(self) -> Any:
        """The old cell state."""
        return self.e.load(self._state, self._c)

    def write_h(self, value: Any) -> None:
        """The new output."""
        self.e.store(value, self._state, self._h)

    def write_c(self, value: Any) -> None:
        """The new cell state."""
        self.e.store(value, self._state, self._c)

    def vector(self, n: int) -> Any:
        """The cell's further vector n, one value per unit."""
        return self.e.load(self._weights, self.e.builder.add(self._further, I64(n * UNITS)))

    def exp_minus(self, x: Any, scale: float = 1.0) -> Any:
        """exp(-scale x) with scale x kept within +-SATURATION: 1 / (1 + it) is a sigmoid, with scale 2 half of a tanh."""
        return self.e.exp(self.e.builder.fmul(self.e.clamp(x, SATURATION / scale), self.e.constant(-scale)))


def make_step(
    gates: int,
    vectors: int,
    finish: Callable[[Units], None],
    reading: tuple[Sequence[int], Sequence[int]] | None = None,
) -> Any:
    """Intrinsic: one step of `count` rows of slots, arguments as in STEP; `finish` writes h (and c) from the gates' sums.

    `reading` names the gates that read the inputs, and those that read h, where these are not all of them. Every row's
    bits are independent of the other rows.
    """
    panel_width = gates * UNITS
    rows = min(_ACCUMULATORS // gates, 12)

    @intrinsic
    def step(
        typing_context: Any, weights: Any, I: Any, H: Any, z: Any, ldz: Any, slots: Any, count: Any, state: Any,
        lds: Any, h0: Any, c0: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            weights, I, H, z, ldz, slots, count, state, lds, h0, c0 = arguments
            e, b = Emitter(builder, UNITS), builder
            K = b.add(I, H)
            size = b.add(b.mul(b.add(K, I64(1)), I64(panel_width)), I64(vectors * UNITS))

            def tile(height: int, panel: Any, first: Any, unit: Any) -> None:
                starts = [b.mul(b.add(first, I64(r)), ldz) for r in range(height)]
                matrix = b.add(panel, I64(panel_width))
                bias = [e.load(weights, b.add(panel, I64(v * UNITS))) for v in range(gates)]
                sums = [list(bias) for _ in range(height)]

                def add(some: Sequence[int], origin: Any, terms: Any) -> None:
                    at = b.add(matrix, b.mul(origin, I64(panel_width)))
                    added = e.accumulate(
                        [[row[gate] for gate in some] for row in sums],
                        terms,
                        lambda v, k: e.load(
                            weights, b.add(b.add(at, b.mul(k, I64(panel_width))), I64(some[v] * UNITS))
                        ),
                        lambda r, k: e.broadcast(z, b.add(b.add(starts[r], origin), k)),
                    )
                    for row, new in zip(sums, added, strict=True):
                        for gate, value in zip(some, new, strict=True):
                            row[gate] = value

                if reading:
                    add(reading[0], I64(0), I)
                    add(reading[1], I, H)
                else:
                    add(range(gates), I64(0), K)
                further = b.add(matrix, b.mul(K, I64(panel_width)))
                for r in range(height):
                    slot = b.sext(b.load(b.gep(slots, [b.add(first, I64(r))])), I64(0).type)
                    row = b.add(b.mul(slot, lds), unit)
                    finish(Units(e, sums[r], state, b.add(row, h0), b.add(row, c0), weights, further))

            panels = b.sdiv(b.add(H, I64(UNITS - 1)), I64(UNITS))
            with cgutils.for_range(b, panels) as loop:
                panel, unit = b.mul(loop.index, size), b.mul(loop.index, I64(UNITS))
                first: Any = I64(0)
                for height in (rows, 2, 1) if rows > 2 else (rows, 1) if rows > 1 else (1,):
                    tiles = b.sdiv(b.sub(count, first), I64(height))
                    with cgutils.for_range(b, tiles) as some:
                        tile(height, panel, b.add(first, b.mul(some.index, I64(height))), unit)
                    first = b.add(first, b.mul(tiles, I64(height)))
            return context.get_dummy_value()

        return types.void(weights, I, H, z, ldz, slots, count, state, lds, h0, c0), generate

    return step
