"""The step of a recurrent cell in plain loops: the sums of `tile` in the same order, so that both write the same bits."""

from typing import Any

import numpy as np

from streamlstm.kernels.cells.program import LARGEST_SUM, UNITS, VARIANCE_FLOOR, Program, Stage, Units
from streamlstm.kernels.compiling import LANES
from streamlstm.kernels.interpreted import NUMBERS, load, total
from streamlstm.types import Float32


@np.errstate(all="ignore")  # wild inputs end in infinities, here as there
def step(
    program: Program, normal: bool, half: bool, weights: Float32, I: int, H: int, z: Float32, ldz: int, slots: Any,
    count: int, state: Any, lds: int, h0: int, c0: int,
) -> None:  # fmt: skip
    """Writes the new state of `count` streams; arguments as in `tile.STEP`, flat arrays in place of pointers."""
    padded = -(-H // LANES) * LANES
    panels = weights[: -(-H // UNITS) * _panel_size(program, normal, I, H)].reshape(-(-H // UNITS), -1)
    values, scale = (state.view(np.float16), 2) if half else (state, 1)
    for r in range(count):
        places = [scale * (int(slots[r]) * lds + at) for at in (h0, c0)]
        row = z[r * ldz : r * ldz + I + H + program.room(normal) * padded]
        stream = _Stream(program, normal, panels, I, H, row, [values[at : at + padded] for at in places])
        for stage in program.stages:
            stream.run(stage)


def _panel_size(program: Program, normal: bool, I: int, H: int) -> int:
    return ((1 + I + H) * program.gates + program.further(normal)) * UNITS


class _Stream:
    """One stream's step: its row of z, its h and c."""

    def __init__(
        self, program: Program, normal: bool, panels: Float32, I: int, H: int, z: Float32, state: list[Any]
    ) -> None:
        self.program, self.normal, self.I, self.H, self.z, self.state = program, normal, I, H, z, state
        matrix = (1 + I + H) * program.gates * UNITS
        self.matrices = panels[:, :matrix].reshape(len(panels), 1 + I + H, program.gates, UNITS)
        self.vectors = panels[:, matrix:].reshape(len(panels), -1, UNITS)
        self.padded = len(state[0])
        self.left = z[I + H :]
        self.sums = self.left[program.left * self.padded :]

    def run(self, stage: Stage) -> None:
        """Sums of a stage's gates, panel by panel; then the cell's units, with normalisation when all sums are there."""
        if not self.normal:
            for panel in range(len(self.matrices)):
                stage.finish(Units(NUMBERS, list(self._gates(stage, panel)), _Panel(self, panel)))
            return
        kept = {gate: self.sums[gate * self.padded : (gate + 1) * self.padded] for gate in stage.gates}
        for panel in range(len(self.matrices)):
            for gate, value in zip(stage.gates, self._gates(stage, panel), strict=True):
                kept[gate][panel * UNITS :][:UNITS] = NUMBERS.clamp(value, LARGEST_SUM)
        normalised = [gate for gate in stage.gates if gate in self.program.normalised]
        for gate in normalised:
            self._standardise(kept[gate])
        for panel in range(len(self.matrices)):
            gates = []
            for gate in stage.gates:
                value = kept[gate][panel * UNITS :][:UNITS]
                if gate in normalised:
                    gain = self.vectors[panel, self.program.vectors + gate]
                    value = NUMBERS.fma(value, gain, self.matrices[panel, 0, gate])
                gates.append(value)
            stage.finish(Units(NUMBERS, gates, _Panel(self, panel)))

    def _gates(self, stage: Stage, panel: int) -> Any:
        """The sums of a panel (gates, UNITS): one chain over what is read, in the order of the stage."""
        matrix = self.matrices[panel]
        sums = matrix[0].copy()
        if self.normal:
            sums[list(self.program.normalised)] = 0
        I, H = self.I, self.H
        places = {
            "all": (0, self.z, I + H),
            "x": (0, self.z, I),
            "h": (I, self.z[I:], H),
            "instead": (I, self.left, H),
        }
        for gates, what in stage.reading():
            first, read, terms = places[what]
            of = list(gates)
            for k in range(terms):
                sums[of] = NUMBERS.fma(read[k], matrix[1 + first + k, of], sums[of])
        return sums[list(stage.gates)]

    def _standardise(self, sums: Any) -> None:
        """Brings a gate's sums to mean 0 and variance 1 over the units."""
        units = np.float32(self.H)
        mean = self._total(sums) / units
        away = sums - mean
        variance = self._total(away * away) / units
        sums[:] = away * (np.float32(1) / np.sqrt(variance + np.float32(VARIANCE_FLOOR)))

    def _total(self, values: Any) -> Any:
        """The sum of the H values: 16 chains, then pairs of them."""
        chains = np.zeros(LANES, np.float32)
        for first in range(0, self.padded, LANES):
            inside = np.arange(first, first + LANES) < self.H
            chains = chains + np.where(inside, load(values, first), np.float32(0))
        return total(chains)


class _Panel:
    """Places of one stream's units of a panel."""

    def __init__(self, stream: _Stream, panel: int) -> None:
        self._stream, self._panel = stream, panel
        self._units = slice(panel * UNITS, (panel + 1) * UNITS)

    def read_state(self, which: int) -> Any:
        return self._stream.state[which][self._units].astype(np.float32)

    def write_state(self, which: int, value: Any) -> None:
        self._stream.state[which][self._units] = value

    def read_left(self, n: int) -> Any:
        return self._stream.left[n * self._stream.padded :][self._units]

    def write_left(self, n: int, value: Any) -> None:
        self.read_left(n)[:] = value

    def vector(self, n: int) -> Any:
        return self._stream.vectors[self._panel, n]
