"""A detector's kernels and memory on a device: a batch goes in, wave after wave is launched, scores come out.

The batch is taken in parts. While one part is computed, the next one's records are copied in and the results of the one
before are copied out: one stream of the device copies, another one computes. Between the launches of a part nothing waits.
"""

from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numba.core import types

from streamlstm.kernels.arguments import Out, Records
from streamlstm.kernels.cells.cell import Cell
from streamlstm.kernels.cells.program import PROGRAMS
from streamlstm.kernels.cuda import desk as at
from streamlstm.kernels.cuda.compiling import cuda
from streamlstm.kernels.cuda.memory import DeviceArray, device_errors, gather, new_stream, pinned
from streamlstm.kernels.cuda.records import block_floats, judge_kernel, predict, prepare
from streamlstm.kernels.cuda.step import shared_floats, step_kernel, tile_for
from streamlstm.kernels.cuda.sums import WARP
from streamlstm.kernels.layout import *
from streamlstm.kernels.plan import SPARE, plan_waves
from streamlstm.kernels.wave import panels_size
from streamlstm.types import Float32, Float64, Int64

_MOST, _LEAST = 65_536, 1024
_SCRATCH_BYTES = 512 << 20
"""Scratch of one wave at most, unless the records are so wide that not even _LEAST of them fit."""
_PREPARE_THREADS, _PREDICT_THREADS, _JUDGE_THREADS = 128, 256, 64


class Step(NamedTuple):
    """The step of one layer: its kernel, rows of a block, warps, bytes of shared memory, and what the kernel is told."""

    kernel: Any
    rows: int
    groups: int
    shared: int
    arguments: tuple[int, int, int, int]

    def launch(self, desk: Any, count: int, stream: Any) -> None:
        """Steps the first `count` rows of the desk's wave."""
        self.kernel[-(-count // self.rows), (WARP, self.groups), stream, self.shared](desk, count, *self.arguments)


def layer_step(
    program: int, normal: int, half: int, inputs: int, H: int, arguments: tuple[int, int, int, int], *, own: bool
) -> Step:
    """The step of a layer of this size; `arguments` are w0, inputs, below and h0 of `step.step_kernel`."""
    tile = tile_for(program, normal, inputs, H, own=own)
    shared = 4 * shared_floats(program, normal, inputs, H, tile)
    kernel = _kernel(step_kernel(program, normal, half, *tile), 5)
    return Step(kernel, tile.rows * tile.groups, tile.groups, shared, arguments)


class _Buffers:
    """Memory of one part of a batch: what goes in, the desk first and then the records, and what comes out.

    Each way is one copy: a copy of a few bytes takes as long as one of a hundred kilobytes.
    """

    def __init__(self, features: int, inputs: int) -> None:
        self._features, self._inputs = features, inputs
        self.device, self._results = DeviceArray(np.int64), DeviceArray(np.int64)
        self._given, self._found = pinned(np.int64, 0), pinned(np.int64, 0)
        self.details, self.episodes = DeviceArray(np.float64), DeviceArray(np.int64)
        self.copied, self.done = cuda.event(), cuda.event()

    def reserve(self, n: int) -> None:
        """Room for so many records."""
        self.device.reserve(at.LENGTH + n * (2 + self._inputs) + n // 2 + 1)
        self._results.reserve(OUT_VALUES * n // 2 + OUT_CODES * n // 4 + 2)
        self.details.reserve(OUT_DETAILS * n * self._features)
        self.episodes.reserve(MARKS * n)
        if len(self._given) < self.device.size:
            self._given, self._found = pinned(np.int64, self.device.size), pinned(np.int64, self._results.size)

    def send(self, desk: Int64, records: Records, place: Any, stream: Any) -> None:
        """Copies a part of the records to the device, behind a desk that says where they and their results lie there."""
        n, I = int(desk[at.RECORDS]), self._inputs
        row = at.LENGTH + n
        x, slots = row + n, row + n + n * I
        size = slots + n // 2 + 1
        codes = OUT_VALUES * n // 2 + 1  # whole words before them
        for name, address in (
            (at.TIME, self.device.part(at.LENGTH)), (at.ROW, self.device.part(row)), (at.X, self.device.part(x)),
            (at.SLOTS, self.device.part(slots)), (at.VALUES, self._results.part(0)), (at.CODES, self._results.part(codes)),
            (at.DETAILS, self.details.address), (at.EPISODES, self.episodes.address),
        ):  # fmt: skip
            desk[name] = address
        host = self._given
        host[: at.LENGTH] = desk
        host[at.LENGTH : row] = records.time[place]
        host[row:x] = records.row[place]
        host[x:slots].view(np.float64)[:] = records.x[place].reshape(-1)
        host[slots:size].view(np.int32)[:n] = records.slots[place]
        self.device.put(host[:size], stream)

    def fetch(self, n: int, stream: Any) -> tuple[Any, Any]:
        """Values (OUT_VALUES, n) and codes (OUT_CODES, n), there when the stream is synchronised."""
        codes = OUT_VALUES * n // 2 + 1
        found = self._found[: codes + OUT_CODES * n // 4 + 1]
        self._results.get(found, stream)
        values = found[:codes].view(np.float32)[: OUT_VALUES * n].reshape(OUT_VALUES, n)
        return values, found[codes:].view(np.uint16)[: OUT_CODES * n].reshape(OUT_CODES, n)


class _Part(NamedTuple):
    """A part of a batch that is being computed: where its records stand, in the order in which they are computed."""

    buffers: _Buffers
    place: Any
    records: int
    detail: bool


class Machine:
    """The kernels of one detector with frozen weights; not thread-safe."""

    def __init__(self, cell: Cell, sizes: Int64, params: Float64, weights: Float32, usual: Float32) -> None:
        with device_errors("start"):
            self._sizes = sizes
            self._copy, self._compute = new_stream(), new_stream()
            self._constants = {
                at.SIZES: _resident(sizes), at.PARAMS: _resident(params), at.WEIGHTS: _resident(weights),
                at.USUAL: _resident(usual),
            }  # fmt: skip
            D, O = int(sizes[N_FEATURES]), int(sizes[OUTPUTS])
            self._scratch = {
                at.TAKEN: (np.int32, 1), at.INPUTS: (np.float32, D + int(sizes[N_KNOWN])),
                at.REGRESSORS: (np.float32, int(sizes[LDR])), at.NETWORK: (np.float32, O),
                at.PREDICTION: (np.float32, O), at.BLOCKS: (np.float32, int(block_floats(D))),
            }  # fmt: skip
            self._memory = {name: DeviceArray(dtype) for name, (dtype, _) in self._scratch.items()}
            row_bytes = 4 * sum(wide for _, wide in self._scratch.values())
            self._most = min(max(_SCRATCH_BYTES // row_bytes, _LEAST), _MOST)
            desk = np.zeros(at.LENGTH, np.int64)
            for name, array in (self._constants | self._memory).items():
                desk[name] = array.address
            desk[at.LENGTH_OF_SIZES], desk[at.LENGTH_OF_PARAMS] = sizes.size, params.size
            desk[at.LENGTH_OF_WEIGHTS], desk[at.ENTRIES] = weights.size, self._scratch[at.BLOCKS][1]
            self._desk: Int64 = desk
            I = D + int(sizes[N_KNOWN])
            self._buffers = _Buffers(D, I), _Buffers(D, I)
            self._prepare, self._predict = _kernel(prepare, 2), _kernel(predict, 1)
            self._judge = _kernel(judge_kernel(int(sizes[KIND])), 2)
            self._steps = self._layers(cell)

    def _layers(self, cell: Cell) -> list[Step]:
        sizes, program, normal = self._sizes, PROGRAMS.index(cell.program), int(cell.layer_norm)
        H, kept, half = int(sizes[HIDDEN]), int(sizes[KEPT]), int(sizes[KEPT] != sizes[PADDED])
        inputs, w0, h0, below = int(sizes[N_FEATURES] + sizes[N_KNOWN]), 0, int(sizes[AT_LAYERS]), -1
        steps = []
        for _ in range(int(sizes[LAYERS])):
            told = w0, inputs, below, h0
            steps.append(layer_step(program, normal, half, inputs, H, told, own=bool(sizes[WEIGHTS] > 0)))
            w0 += int(panels_size(sizes, inputs))
            below, h0, inputs = h0, h0 + 2 * kept, H
        return steps

    def score(self, rows: Any, records: Records, out: Out) -> None:
        """Scores the records (arrays of the host) on `rows` (`state.device.DeviceRows`); writes `out`, arrays of the host."""
        B = len(records.slots)
        with device_errors("make room for a batch"):  # before anything is changed
            self._widen(min(B, self._most, rows.room))
            for buffers in self._buffers[: -(-B // self._most)]:
                buffers.reserve(min(B, self._most))
        with device_errors("score a batch; what its streams hold now is unknown, go on from a snapshot"):
            before = None
            for number, first in enumerate(range(0, B, self._most)):
                part = self._submit(self._buffers[number % 2], rows, records, first, min(first + self._most, B))
                if before is not None:
                    self._collect(before, out)
                before = part
            if before is not None:
                self._collect(before, out)

    def _submit(self, buffers: _Buffers, rows: Any, records: Records, first: int, end: int) -> _Part:
        """Copies records first .. end to the device and launches all that is to be done with them."""
        n = end - first
        order, waves = np.empty(n, np.int32), np.empty(n + 1, np.int32)
        count = plan_waves(records.slots[first:end], order, waves, np.empty(4 * n + 1 + SPARE, np.int32))
        begins = waves[: count + 1].tolist()
        in_order = bool((order[1:] > order[:-1]).all())
        place: Any = slice(first, end) if in_order else first + order.astype(np.int64)
        desk = self._desk.copy()
        desk[at.STATE], desk[at.STATS], desk[at.MARKS] = rows.state.address, rows.stats.address, rows.marks.address
        desk[at.STREAMS], desk[at.RECORDS] = rows.room, n
        desk[at.SOURCE], desk[at.DETAIL] = records.source, records.detail
        buffers.send(desk, records, place, self._copy)
        buffers.copied.record(self._copy)
        buffers.copied.wait(self._compute)
        for now, then in pairwise(begins):
            self._launch(buffers.device.array, now, then - now)
        buffers.done.record(self._compute)
        return _Part(buffers, place, n, bool(records.detail))

    def _widen(self, widest: int) -> None:
        """Scratch for waves of so many records."""
        if widest > self._desk[at.WIDEST]:
            self._desk[at.WIDEST] = widest
            for name, (_, wide) in self._scratch.items():
                self._memory[name].reserve(widest * wide)
                self._desk[name] = self._memory[name].address

    def _launch(self, desk: Any, first: int, count: int) -> None:
        stream = self._compute
        self._prepare[-(-count // _PREPARE_THREADS), _PREPARE_THREADS, stream](desk, first, count)
        for step in self._steps:
            step.launch(desk, count, stream)
        elements = count * HEADS * int(self._sizes[N_FEATURES])
        self._predict[-(-elements // _PREDICT_THREADS), _PREDICT_THREADS, stream](desk, count)
        self._judge[-(-count // _JUDGE_THREADS), _JUDGE_THREADS, stream](desk, first, count)

    def _collect(self, part: _Part, out: Out) -> None:
        """Waits for a part and writes its results to their places."""
        buffers, n, place = part.buffers, part.records, part.place
        D = int(self._sizes[N_FEATURES])
        buffers.done.wait(self._copy)
        values, codes = buffers.fetch(n, self._copy)
        details = None
        if part.detail:
            details = np.empty(OUT_DETAILS * n * D)
            buffers.details.get(details, self._copy)
        self._copy.synchronize()
        out.values[:, place], out.codes[:, place] = values, codes
        if details is not None:
            out.details[:, place] = details.reshape(OUT_DETAILS, n, D)
        detailed, changed = np.flatnonzero(codes[OUT_DETAILED]), np.flatnonzero(codes[OUT_CHANGE])
        where = np.arange(place.start, place.stop) if isinstance(place, slice) else place
        if details is None and len(detailed):
            rows = (detailed + n * np.arange(OUT_DETAILS)[:, None]).reshape(-1)
            out.details[:, where[detailed]] = gather(buffers.details, rows, D, self._copy).reshape(OUT_DETAILS, -1, D)
        if len(changed):
            out.episodes[where[changed]] = gather(buffers.episodes, changed, MARKS, self._copy)


def _resident(values: Any) -> DeviceArray:
    array = DeviceArray(values.dtype, values.size)
    array.put(np.ascontiguousarray(values))
    cuda.synchronize()
    return array


@cache
def _kernel(function: Any, integers: int) -> Any:
    """A kernel of the desk and so many integers, compiled now and once for all detectors of the process."""
    return cuda.jit(types.void(*signature(integers)))(function)


def signature(integers: int) -> tuple[Any, ...]:
    """Numba's types of the arguments of a kernel: the desk and so many integers."""
    return (types.int64[::1], *[types.int64] * integers)
