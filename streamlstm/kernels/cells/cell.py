"""What the package knows of a recurrent cell besides its compiled functions, and how its weights lie."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streamlstm.kernels.cells.program import PROGRAMS, UNITS, Program
from streamlstm.kernels.cells.tile import step_function
from streamlstm.kernels.compiling import CFunction, padded
from streamlstm.types import Float32


class Layer(NamedTuple):
    """Weights of one layer, float32: W_ih (G H, I), W_hh (G H, H), bias (G H) gate by gate, vectors (V H).

    Where a gate reads no inputs or no h, its weights of those are zero.
    """

    W_ih: Float32
    W_hh: Float32
    bias: Float32
    vectors: Float32


class Kernels(NamedTuple):
    """A cell as training kernels see it: sizes, bits of the gates that read inputs and h, addresses of its functions.

    late: gates, the last ones, that read in place of h what `early` makes of the others; normal: H with layer
    normalisation, else 0, which is for the gates that read h; own: further vectors without gains.
    """

    gates: int
    vectors: int
    reading_inputs: int
    reading_h: int
    forward: int
    backward: int
    late: int
    early_forward: int
    early_backward: int
    normal: int
    own: int


@dataclass(frozen=True, slots=True)
class Cell:
    """A recurrent cell: its step as a program, its functions for training, and the gate whose bias starts at 1.

    early: of a program of two stages, the functions of training for what the first leaves in place of h; layer_norm:
    layer normalisation (Ba and others 2016) of the sums of gates that read h, each gate over its H units.
    """

    name: str
    program: Program
    forward: CFunction
    backward: CFunction
    forget_gate: int | None = None
    early: tuple[CFunction, CFunction] | None = None
    layer_norm: bool = False

    @property
    def gates(self) -> int:
        """G."""
        return self.program.gates

    @property
    def own_vectors(self) -> int:
        """Further vectors without the gains of layer normalisation."""
        return self.program.vectors

    @property
    def vectors(self) -> int:
        """V: further vectors, then gains."""
        return self.program.further(self.layer_norm)

    @property
    def input_gates(self) -> tuple[int, ...]:
        """Gates that read the inputs, in the order of PyTorch's weights."""
        return tuple(sorted(gate for stage in self.program.stages for gate in stage.inputs))

    @property
    def recurrent_gates(self) -> tuple[int, ...]:
        """Gates that read h, or what stands in its place, in the order of PyTorch's weights."""
        return self.program.normalised

    @property
    def step(self) -> CFunction:
        """One step on a state of float32, see `tile`."""
        return step_function(PROGRAMS.index(self.program), int(self.layer_norm), 0)

    @property
    def step_half(self) -> CFunction:
        """One step on a state of float16."""
        return step_function(PROGRAMS.index(self.program), int(self.layer_norm), 1)

    def room(self, H: int) -> int:
        """float32 values of a row of z behind the old h."""
        return self.program.room(self.layer_norm) * padded(H)

    def compile(self) -> None:
        """Compiles, or loads, all functions."""
        for function in (self.step, self.forward, self.backward, *(self.early or ())):
            function.address  # noqa: B018 - made when asked for

    def kernels(self, H: int) -> Kernels:
        """What training kernels need for H units; compiles, or loads, the functions of training."""
        late = sum(len(stage.instead) for stage in self.program.stages)
        early_forward, early_backward = (function.address for function in self.early) if self.early else (0, 0)
        return Kernels(
            self.gates, self.vectors, _bits(self.input_gates), _bits(self.recurrent_gates), self.forward.address,
            self.backward.address, late, early_forward, early_backward, H if self.layer_norm else 0, self.own_vectors,
        )  # fmt: skip

    def shapes(self, I: int, H: int) -> tuple[tuple[int, ...], ...]:
        """Shapes of a `Layer` of I inputs and H units."""
        return (self.gates * H, I), (self.gates * H, H), (self.gates * H,), (self.vectors * H,)

    def zeros(self, I: int, H: int) -> Layer:
        """A layer without a weight."""
        return Layer(*(np.zeros(shape, np.float32) for shape in self.shapes(I, H)))

    def pack(self, layer: Layer) -> Float32:
        """Panels (flat) of a layer, see `program`."""
        W_ih, W_hh, bias, vectors = layer
        G, V, H, I = self.gates, self.vectors, W_hh.shape[1], W_ih.shape[1]
        wide = -(-H // UNITS) * UNITS
        columns = np.zeros((1 + I + H, G, wide), np.float32)
        columns[0, :, :H] = bias.reshape(G, H)
        columns[1 : 1 + I, :, :H] = W_ih.reshape(G, H, I).transpose(2, 0, 1)
        columns[1 + I :, :, :H] = W_hh.reshape(G, H, H).transpose(2, 0, 1)
        panels = columns.reshape(1 + I + H, G, wide // UNITS, UNITS).transpose(2, 0, 1, 3)
        behind = np.zeros((V, wide), np.float32)
        behind[:, :H] = vectors.reshape(V, H)
        further = behind.reshape(V, wide // UNITS, UNITS).transpose(1, 0, 2)
        return np.concatenate([part.reshape(wide // UNITS, -1) for part in (panels, further)], axis=1).reshape(-1)

    def tensors(self, layer: Layer) -> dict[str, Float32]:
        """A layer's weights by PyTorch's names and in its order; the bias stands in the first of its two."""
        H = layer.W_hh.shape[1]
        of_inputs, of_h = self._rows(self.input_gates, H), self._rows(self.recurrent_gates, H)
        second = np.zeros_like(layer.bias)
        alone = self._rows(tuple(gate for gate in range(self.gates) if gate not in self.input_gates), H)
        second[alone] = layer.bias[alone]
        named = {
            "weight_ih": layer.W_ih[of_inputs],
            "weight_hh": layer.W_hh[of_h],
            "bias_ih": layer.bias[of_inputs],
            "bias_hh": second[of_h],
        }
        own = self.own_vectors * H
        if own:
            named["weight_ch"] = layer.vectors[:own]
        if self.layer_norm:
            named["weight_ln"] = layer.vectors[own:][of_h]
        return named

    def layer(self, tensors: dict[str, Float32]) -> Layer:
        """The reverse of `tensors`; ValueError where a shape does not fit the cell."""
        W_hh = tensors["weight_hh"]
        H, I = W_hh.shape[1], tensors["weight_ih"].shape[1]
        layer = self.zeros(I, H)
        of_inputs, of_h = self._rows(self.input_gates, H), self._rows(self.recurrent_gates, H)
        layer.W_ih[of_inputs] = tensors["weight_ih"]
        layer.W_hh[of_h] = W_hh
        layer.bias[of_inputs] += tensors["bias_ih"]
        layer.bias[of_h] += tensors["bias_hh"]
        own = self.own_vectors * H
        if own:
            layer.vectors[:own] = tensors["weight_ch"]
        if self.layer_norm:
            layer.vectors[own:][of_h] = tensors["weight_ln"]
        return layer

    @staticmethod
    def _rows(gates: tuple[int, ...], H: int) -> list[int]:
        return [gate * H + unit for gate in gates for unit in range(H)]


def _bits(gates: tuple[int, ...]) -> int:
    return sum(1 << gate for gate in gates)
