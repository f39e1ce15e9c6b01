"""What a step of a recurrent cell computes, said once for vector code (`tile`) and plain Python (`interpreted`).

| letter | size |
|---|---|
| I, H | inputs of the layer, hidden units |
| G | gates: sums that a unit needs, each of its own column of the weights |
| U | units of a panel: one vector register of them |
| P | panels: H / U, rounded up |

Weights of a layer are P panels after one another, each (1 + I + H, G U) float32: the bias, then a row per input and per h;
then the cell's further vectors, U values each, and with layer normalisation the gain of every gate. Units beyond H have
zero weights and stay exactly zero.

A cell is one or more stages: sums of some gates, and what is made of them. A row of z holds the inputs, the old h, and
behind them what a stage leaves for the next one (vectors of Hp values, H rounded up to 16; the first may be read in place
of h), then, with layer normalisation, the sums of all gates (Hp each).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from streamlstm.kernels.arithmetic import Arithmetic
from streamlstm.kernels.compiling import HAS_AVX512, LANES

UNITS = LANES if HAS_AVX512 else LANES // 2
"""Units of a panel. With 32 registers of 16 lanes, 24 accumulators, 4 weights and a broadcast fill 29. With 16 registers of
8 lanes, 8 accumulators (two rows of an LSTM), 4 weights and 2 broadcasts fill 14; 12 spill (1.7 times the time at H = 128),
and one row of 16 units reads every weight for itself (1.6 times, EPYC, November 2026)."""

# Beyond +-20 a sigmoid differs from 0 or 1 by less than 2.1e-9, a tanh of half that argument rounds to +-1; and a product
# of three exponentials stays below 2^87, far from an overflow.
SATURATION = 20.0
VARIANCE_FLOOR = 1e-5
"""Of a normalised layer, as in PyTorch's LayerNorm."""
LARGEST_SUM = 1e15
"""Of a normalised layer: the sum of 512 squares stays finite."""


class Memory(Protocol):
    """Where the units of one stream lie: state 0 is h and 1 is c."""

    def read_state(self, which: int) -> Any:
        """h (0) or c (1)."""
        ...

    def write_state(self, which: int, value: Any) -> None:
        """The reverse of `read_state`."""
        ...

    def read_left(self, n: int) -> Any:
        """Vector n of those that the stage before left."""
        ...

    def write_left(self, n: int, value: Any) -> None:
        """The reverse of `read_left`."""
        ...

    def vector(self, n: int) -> Any:
        """Further vector n."""
        ...


class Units:
    """The units of a panel for one stream: the sums of a stage's gates, the old state, and what the cell makes of them."""

    def __init__(self, e: Arithmetic, gates: list[Any], memory: Memory) -> None:
        self.e, self.gates, self._memory = e, gates, memory

    def h(self) -> Any:
        """The old output."""
        return self._memory.read_state(0)

    def c(self) -> Any:
        """The old cell state."""
        return self._memory.read_state(1)

    def write_h(self, value: Any) -> None:
        """The new output."""
        self._memory.write_state(0, value)

    def write_c(self, value: Any) -> None:
        """The new cell state."""
        self._memory.write_state(1, value)

    def left(self, n: int) -> Any:
        """Vector n of those that the stage before left."""
        return self._memory.read_left(n)

    def leave(self, n: int, value: Any) -> None:
        """Leaves vector n to the next stage; gates of it may read vector 0 in place of h."""
        self._memory.write_left(n, value)

    def vector(self, n: int) -> Any:
        """The cell's further vector n, one value per unit."""
        return self._memory.vector(n)

    def exp_minus(self, x: Any, scale: float = 1.0) -> Any:
        """exp(-scale x) with scale x kept within +-SATURATION: 1 / (1 + it) is a sigmoid, with scale 2 half of a tanh."""
        return self.e.exp(self.e.mul(self.e.clamp(x, SATURATION / scale), self.e.constant(-scale)))


@dataclass(frozen=True, slots=True)
class Stage:
    """Gates whose sums are complete at one time; `inputs`, `h` and `instead` are those of them that read the inputs, h, and
    what the stage before left in place of h. `finish` makes h (and c), or what is left to the next stage."""

    gates: tuple[int, ...]
    finish: Callable[[Units], None]
    inputs: tuple[int, ...]
    h: tuple[int, ...]
    instead: tuple[int, ...] = ()

    def reading(self) -> list[tuple[tuple[int, ...], str]]:
        """Gates and what they read, in the order of the sums; gates that read inputs and h do so in one go."""
        if self.inputs == self.h == self.gates:
            return [(self.gates, "all")]
        return [
            (gates, what) for gates, what in ((self.inputs, "x"), (self.h, "h"), (self.instead, "instead")) if gates
        ]


@dataclass(frozen=True, slots=True)
class Program:
    """A step: G gates, V further vectors of one value per unit, the stages, and how many vectors one leaves to the next."""

    gates: int
    vectors: int
    stages: tuple[Stage, ...]
    left: int = 0

    def __post_init__(self) -> None:
        PROGRAMS.append(self)

    @property
    def normalised(self) -> tuple[int, ...]:
        """Gates that layer normalisation is for: those that read h, or what stands in its place."""
        return tuple(sorted(gate for stage in self.stages for gate in stage.h + stage.instead))

    def further(self, normal: bool) -> int:
        """Values per unit of a panel behind its matrix."""
        return self.vectors + (self.gates if normal else 0)

    def room(self, normal: bool) -> int:
        """Values per unit of a row of z behind the old h."""
        return self.left + (self.gates if normal else 0)


PROGRAMS: list[Program] = []
"""Compiled functions close over a program's number: their cache allows integers only."""
