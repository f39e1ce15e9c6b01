"""Layers of recurrent cells for tests: random ones, and their weights for the naive reference."""

from typing import Any

import numpy as np

from streamlstm.kernels.cells import Cell, Layer


def random_layer(cell: Cell, inputs: int, hidden: int, rng: Any, scale: float) -> Layer:
    """A layer of normal weights, without those that the cell does not read."""
    drawn = Layer(*(rng.normal(0, scale, shape).astype(np.float32) for shape in cell.shapes(inputs, hidden)))
    return cell.layer(cell.tensors(drawn))


def textbook(cell: Cell, layer: Layer) -> dict[str, Any]:
    """The layer's weights by PyTorch's names, float64."""
    return {name: array.astype(float) for name, array in cell.tensors(layer).items()}
