"""What the package knows of a recurrent cell besides its compiled functions, and how its weights lie."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streamlstm.kernels.cells.tile import UNITS
from streamlstm.kernels.compiling import CFunction
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
    """A cell as kernels see it: its sizes, bits of the gates that read inputs and h, addresses of its functions."""

    gates: int
    vectors: int
    reading_inputs: int
    reading_h: int
    forward: int
    backward: int


@dataclass(frozen=True, slots=True)
class Cell:
    """A recurrent cell of G gates and V further vectors of one value per unit.

    input_gates and recurrent_gates: which gates read the inputs, and h, in the order of PyTorch's weights; forget_gate: the
    one whose bias starts at 1.
    """

    name: str
    gates: int
    step: CFunction
    forward: CFunction
    backward: CFunction
    vectors: int = 0
    input_gates: tuple[int, ...] = (0, 1, 2, 3)
    recurrent_gates: tuple[int, ...] = (0, 1, 2, 3)
    forget_gate: int | None = None

    def compile(self) -> None:
        """Compiles, or loads, all functions."""
        for function in (self.step, self.forward, self.backward):
            function.compiled  # noqa: B018 - made when asked for

    def kernels(self) -> Kernels:
        """What training kernels need; compiles, or loads, the functions of training."""
        inputs, h = (sum(1 << gate for gate in gates) for gates in (self.input_gates, self.recurrent_gates))
        return Kernels(self.gates, self.vectors, inputs, h, self.forward.address, self.backward.address)

    def shapes(self, I: int, H: int) -> tuple[tuple[int, ...], ...]:
        """Shapes of a `Layer` of I inputs and H units."""
        return (self.gates * H, I), (self.gates * H, H), (self.gates * H,), (self.vectors * H,)

    def pack(self, layer: Layer) -> Float32:
        """Panels (flat) of a layer, see `tile`."""
        W_ih, W_hh, bias, vectors = layer
        G, V, H, I = self.gates, self.vectors, W_hh.shape[1], W_ih.shape[1]
        padded = -(-H // UNITS) * UNITS
        columns = np.zeros((1 + I + H, G, padded), np.float32)
        columns[0, :, :H] = bias.reshape(G, H)
        columns[1 : 1 + I, :, :H] = W_ih.reshape(G, H, I).transpose(2, 0, 1)
        columns[1 + I :, :, :H] = W_hh.reshape(G, H, H).transpose(2, 0, 1)
        panels = columns.reshape(1 + I + H, G, padded // UNITS, UNITS).transpose(2, 0, 1, 3)
        behind = np.zeros((V, padded), np.float32)
        behind[:, :H] = vectors.reshape(V, H)
        further = behind.reshape(V, padded // UNITS, UNITS).transpose(1, 0, 2)
        return np.concatenate([part.reshape(padded // UNITS, -1) for part in (panels, further)], axis=1).reshape(-1)

    def tensors(self, layer: Layer) -> dict[str, Float32]:
        """A layer's weights by PyTorch's names and in its order; the bias stands in the first of its two."""
        H = layer.W_hh.shape[1]
        of_inputs, of_h = self._rows(self.input_gates, H), self._rows(self.recurrent_gates, H)
        second = np.zeros(self.gates * H, np.float32)
        alone = self._rows(tuple(gate for gate in range(self.gates) if gate not in self.input_gates), H)
        second[alone] = layer.bias[alone]
        named = {
            "weight_ih": layer.W_ih[of_inputs],
            "weight_hh": layer.W_hh[of_h],
            "bias_ih": layer.bias[of_inputs],
            "bias_hh": second[of_h],
        }
        return named | ({"weight_ch": layer.vectors} if self.vectors else {})

    def layer(self, tensors: dict[str, Float32]) -> Layer:
        """The reverse of `tensors`; ValueError where a shape does not fit the cell."""
        W_hh = tensors["weight_hh"]
        H, I = W_hh.shape[1], tensors["weight_ih"].shape[1]
        layer = Layer(*(np.zeros(shape, np.float32) for shape in self.shapes(I, H)))
        of_inputs, of_h = self._rows(self.input_gates, H), self._rows(self.recurrent_gates, H)
        layer.W_ih[of_inputs] = tensors["weight_ih"]
        layer.W_hh[of_h] = W_hh
        layer.bias[of_inputs] += tensors["bias_ih"]
        layer.bias[of_h] += tensors["bias_hh"]
        if self.vectors:
            layer.vectors[:] = tensors["weight_ch"]
        return layer

    @staticmethod
    def _rows(gates: tuple[int, ...], H: int) -> list[int]:
        return [gate * H + unit for gate in gates for unit in range(H)]
