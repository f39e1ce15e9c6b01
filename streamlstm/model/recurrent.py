"""One recurrent layer without a detector around it: for programs that want the step of a cell and nothing else."""

from typing import Any

import numpy as np

from streamlstm.errors import UsageError
from streamlstm.kernels.cells import CELLS, cell_named
from streamlstm.kernels.compiling import padded
from streamlstm.kernels.layout import TILE
from streamlstm.kernels.step import step_batch, step_sequence
from streamlstm.types import Float32, Int32

MOST_INPUTS, LEAST_UNITS, MOST_UNITS = 512, 4, 512


class RecurrentLayer:
    """A layer of H units on I inputs, and the state of S streams, which its steps change. Not thread-safe.

    `weights` are float32 by PyTorch's names and in its order: weight_ih (G H, I), weight_hh (G H, H), bias_ih and bias_hh
    (G H); of a peephole LSTM weight_ch (3 H); with layer normalisation weight_ln (G H), the gains. `state` float32 (S, 2
    Hp) holds h, then c, H rounded up to Hp, a multiple of 16. Raises UsageError for what does not fit, before any step.
    """

    def __init__(self, cell: str, weights: dict[str, Float32], streams: int, *, layer_norm: bool = False) -> None:
        if cell not in CELLS:
            raise UsageError(f"cell: {cell!r} is none of {', '.join(CELLS)}")
        kind = cell_named(cell, layer_norm)
        self.inputs, self.hidden = I, H = _sizes(weights)
        expected = {name: array.shape for name, array in kind.tensors(kind.zeros(I, H)).items()}
        if weights.keys() != expected.keys():
            raise UsageError(f"weights: {', '.join(weights)} are given, a {cell} has {', '.join(expected)}")
        for name, shape in expected.items():
            _check(name, weights[name], shape)
            if not np.isfinite(weights[name]).all():
                raise UsageError(f"{name}: holds values that are not finite")
        if streams < 1:
            raise UsageError(f"streams: {streams}; at least 1 is needed")
        self._step, self._weights = kind.step.address, kind.pack(kind.layer(weights))
        self._scratch = np.zeros(TILE * (I + H + kind.room(H)), np.float32)
        self.state = np.zeros((streams, 2 * padded(H)), np.float32)

    def step(self, x: Float32, streams: Int32) -> Float32:
        """One step of different `streams`, int32 (B), with x float32 (B, I), in one compiled call; their new h (B, H)."""
        _check("streams", streams, (len(streams),), np.int32)
        _check("x", x, (len(streams), self.inputs))
        if len(streams) and not (streams.min() >= 0 and streams.max() < len(self.state)):
            raise UsageError(f"streams: {streams.min()} to {streams.max()}; there are {len(self.state)}, from 0 on")
        if len(np.unique(streams)) < len(streams):
            raise UsageError("streams: one is named twice; a step is one record of each stream")
        step_batch(*self.arguments(x, streams))
        return self.state[streams, : self.hidden]

    def sequence(self, x: Float32, stream: int) -> Float32:
        """Steps one stream through x float32 (T, I) in one compiled call; its h after each step, (T, H)."""
        _check("x", x, (len(x), self.inputs))
        if not 0 <= stream < len(self.state):
            raise UsageError(f"stream: {stream}; there are {len(self.state)}, from 0 on")
        out = np.zeros((len(x), self.hidden), np.float32)
        step_sequence(*self.arguments(x, np.array([stream], np.int32)), out)
        return out

    def arguments(self, x: Float32, streams: Int32) -> tuple[Any, ...]:
        """Those of `kernels.step`, for callers that have checked them and count nanoseconds."""
        return self._step, self._weights, self.hidden, x, streams, self.state, self._scratch


def _sizes(weights: dict[str, Float32]) -> tuple[int, int]:
    """I and H of weights by name."""
    for name in ("weight_ih", "weight_hh"):
        shape = np.shape(weights[name]) if name in weights else None
        if shape is None or len(shape) != 2:
            raise UsageError(f"{name}: a matrix of rows for each gate's units is needed, {shape or 'nothing'} is given")
    I, H = weights["weight_ih"].shape[1], weights["weight_hh"].shape[1]
    if not 1 <= I <= MOST_INPUTS:
        raise UsageError(f"weight_ih: reads {I} inputs; 1 to {MOST_INPUTS} are possible")
    if not LEAST_UNITS <= H <= MOST_UNITS:
        raise UsageError(f"weight_hh: has {H} units; {LEAST_UNITS} to {MOST_UNITS} are possible")
    return I, H


def _check(name: str, array: Any, shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise UsageError(f"{name}: is {found}, an array of {dtype.__name__} is needed")
    if array.shape != shape:
        raise UsageError(f"{name}: has shape {array.shape}, {shape} is needed")
    if not array.flags.c_contiguous:
        raise UsageError(f"{name}: has strides {array.strides}; give numpy.ascontiguousarray of it")
