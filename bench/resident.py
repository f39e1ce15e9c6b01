"""Our bare step on a GPU, with inputs, weights and state in its memory, and what the GPU could do at best."""

import numpy as np

from bench.problem import Float32, Problem
from streamlstm.kernels.cells import CELLS, Layer
from streamlstm.kernels.cells.program import PROGRAMS
from streamlstm.kernels.compiling import padded
from streamlstm.kernels.cuda import desk as at
from streamlstm.kernels.cuda.compiling import cuda
from streamlstm.kernels.cuda.machine import Step, layer_step
from streamlstm.kernels.cuda.memory import DeviceArray, new_stream
from streamlstm.kernels.layout import HIDDEN, KEPT, N_FEATURES, PADDED, SIZES, STATE_WIDTH

_CORES = {7: 64}
"""float32 multiply-adds of a multiprocessor and cycle, by major architecture; 8.0 has 64, all others 128."""


class ResidentStep:
    """One LSTM layer of B streams, stepped in place from call to call."""

    def __init__(self, problem: Problem) -> None:
        (B, I), self._H = problem.x.shape, problem.h.shape[1]
        H, self._padded = self._H, padded(problem.h.shape[1])
        cell = CELLS["lstm"]
        weights = cell.pack(Layer(problem.W_ih, problem.W_hh, problem.bias, np.zeros(0, np.float32)))
        sizes = np.zeros(SIZES, np.int64)
        sizes[[N_FEATURES, HIDDEN, PADDED, KEPT, STATE_WIDTH]] = I, H, self._padded, self._padded, 2 * self._padded
        state = np.zeros((B, 2, self._padded), np.float32)
        state[:, 0, :H], state[:, 1, :H] = problem.h, problem.c
        self._arrays = {
            at.SIZES: sizes, at.WEIGHTS: weights, at.STATE: state, at.TAKEN: np.arange(B, dtype=np.int32),
            at.INPUTS: problem.x,
        }  # fmt: skip
        self._held = {name: DeviceArray(array.dtype, array.size) for name, array in self._arrays.items()}
        desk = np.zeros(at.LENGTH, np.int64)
        for name, array in self._arrays.items():
            self._held[name].put(np.ascontiguousarray(array).reshape(-1), 0)
            desk[name] = self._held[name].address
        desk[at.LENGTH_OF_SIZES], desk[at.LENGTH_OF_WEIGHTS] = sizes.size, weights.size
        desk[at.STREAMS], desk[at.WIDEST] = B, B
        self._desk = DeviceArray(np.int64, desk.size)
        self._desk.put(desk, 0)
        self._stream = new_stream()
        self._count = B
        self._step: Step = layer_step(PROGRAMS.index(cell.program), 0, 0, I, H, (0, I, -1, 0), own=False)
        cuda.synchronize()

    def launch(self) -> None:
        """One step; does not wait for it."""
        self._step.launch(self._desk.address, self._count, self._stream)

    def state(self) -> tuple[Float32, Float32]:
        """h and c (B, H) now."""
        out = np.empty(self._count * 2 * self._padded, np.float32)
        cuda.synchronize()
        self._held[at.STATE].get(out, 0)
        cuda.synchronize()
        rows = out.reshape(self._count, 2, self._padded)[:, :, : self._H]
        return rows[:, 0].copy(), rows[:, 1].copy()


def peak_rates() -> tuple[float, float]:
    """Multiply-adds and bytes per second of the device: multiprocessors x cores x clock, bus width x memory clock x 2."""
    device = cuda.get_current_device()
    major, minor = device.compute_capability
    cores = 64 if (major, minor) == (8, 0) else _CORES.get(major, 128)
    multiply_adds = device.MULTIPROCESSOR_COUNT * cores * device.CLOCK_RATE * 1e3
    return multiply_adds, device.GLOBAL_MEMORY_BUS_WIDTH / 8 * device.MEMORY_CLOCK_RATE * 1e3 * 2
