"""A detector's kernels and memory on a device: a batch goes in, wave after wave is launched, scores come out.

A large batch is taken in parts. While one part is computed, the next one's records are copied in and the results of the
one before are copied out: one stream of the device copies, another one computes. The host does not wait between launches.
"""

import threading
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from streamlstm.kernels.arguments import Out, Records
from streamlstm.kernels.cells.cell import Cell
from streamlstm.kernels.cells.program import PROGRAMS
from streamlstm.kernels.cuda import desk as at
from streamlstm.kernels.cuda.compiling import Kernel, compiled, cuda
from streamlstm.kernels.cuda.memory import DeviceArray, Mover, device_errors, new_event, new_stream, pinned
from streamlstm.kernels.cuda.records import block_floats, judge_kernel, predict, prepare
from streamlstm.kernels.cuda.step import shared_floats, step_kernel, tile_for
from streamlstm.kernels.cuda.sums import WARP
from streamlstm.kernels.layout import *
from streamlstm.kernels.plan import SPARE, plan_waves
from streamlstm.kernels.wave import panels_size
from streamlstm.types import Float32, Float64, Int64

_MOST, _LEAST = 65_536, 1024
_PARTS, _SMALLEST = 4, 8192
"""A batch is divided by so many, for copies and kernels to overlap, but not into parts so small that they leave it idle."""
_SCRATCH_BYTES = 512 << 20
"""Scratch of one wave at most, unless the records are so wide that not even _LEAST of them fit."""
_SCRATCH = at.TAKEN, at.INPUTS, at.REGRESSORS, at.NETWORK, at.PREDICTION, at.BLOCKS
_PREPARE_THREADS, _PREDICT_THREADS, _JUDGE_THREADS = 128, 256, 64


class Step(NamedTuple):
    """The step of one layer: its kernel, rows of a block, warps, bytes of shared memory, and what the kernel is told."""

    kernel: Kernel
    rows: int
    groups: int
    shared: int
    arguments: tuple[int, int, int, int]

    def launch(self, desk: int, count: int, stream: Any) -> None:
        """Steps the first `count` rows of the wave; `desk` is where that lies."""
        blocks = -(-count // self.rows)
        self.kernel.launch(blocks, (WARP, self.groups), stream, self.shared, desk, count, *self.arguments)


def layer_step(
    program: int, normal: int, half: int, inputs: int, H: int, arguments: tuple[int, int, int, int], *, own: bool
) -> Step:
    """The step of a layer of this size; `arguments` are w0, inputs, below and h0 of `step.step_kernel`."""
    tile = tile_for(program, normal, inputs, H, own=own)
    shared = 4 * shared_floats(program, normal, inputs, H, tile)
    kernel = compiled(step_kernel(program, normal, half, *tile), 6)
    return Step(kernel, tile.rows * tile.groups, tile.groups, shared, arguments)


class _Sections:
    """Where the parts of one flat array of 8-byte words begin."""

    def __init__(self) -> None:
        self.words = 0

    def take(self, values: int, width: int) -> int:
        """The first word of a section of so many values of `width` bytes."""
        first = self.words
        self.words += -(-values * width // 8)
        return first


class _Buffers:
    """Memory of one part of a batch: what goes in, the desk first and then the records, and what comes out.

    Each way is one copy: a copy of a few bytes takes as long as one of a hundred kilobytes.
    """

    def __init__(self) -> None:
        self._given, self._found = DeviceArray(np.int64), DeviceArray(np.int64)
        self._host, self._told = pinned(np.int64, 0), pinned(np.int64, 0)
        self.details, self.episodes = DeviceArray(np.float64), DeviceArray(np.int64)
        self._detail = pinned(np.float64, 0)
        self.copied, self.done = new_event(), new_event()

    @property
    def desk(self) -> int:
        """Where the desk lies on the device."""
        return self._given.address

    def reserve(self, n: int, D: int, I: int, *, detail: bool) -> None:
        """Room for so many records."""
        given, found = self._lie(n, I)
        self._given.reserve(given.words)
        self._found.reserve(found.words)
        self.details.reserve(OUT_DETAILS * n * D)
        self.episodes.reserve(MARKS * n)
        if len(self._host) < given.words:
            self._host = pinned(np.int64, given.words)
        if len(self._told) < found.words:
            self._told = pinned(np.int64, found.words)
        if detail and len(self._detail) < OUT_DETAILS * n * D:
            self._detail = pinned(np.float64, OUT_DETAILS * n * D)

    def _lie(self, n: int, I: int) -> tuple[_Sections, _Sections]:
        given, found = _Sections(), _Sections()
        given.take(at.LENGTH, 8)
        self._time, self._row, self._x = given.take(n, 8), given.take(n, 8), given.take(n * I, 8)
        self._slots, self._order = given.take(n, 4), given.take(n, 4)
        self._values, self._codes = found.take(OUT_VALUES * n, 4), found.take(OUT_CODES * n, 2)
        return given, found

    def send(self, desk: Int64, records: Records, first: int, order: Any, stream: Any) -> None:
        """Copies the records from `first` on to the device, behind a desk that says where they and their results lie there."""
        n, I = len(order), records.x.shape[1]
        given, _ = self._lie(n, I)
        for name, word in (
            (at.TIME, self._time), (at.ROW, self._row), (at.X, self._x), (at.SLOTS, self._slots), (at.ORDER, self._order),
        ):  # fmt: skip
            desk[name] = self._given.part(word)
        desk[at.VALUES], desk[at.CODES] = self._found.part(self._values), self._found.part(self._codes)
        desk[at.DETAILS], desk[at.EPISODES], desk[at.RECORDS] = self.details.address, self.episodes.address, n
        host, end = self._host, first + n
        host[: at.LENGTH] = desk
        host[self._time : self._time + n] = records.time[first:end]
        host[self._row : self._row + n] = records.row[first:end]
        host[self._x : self._x + n * I].view(np.float64)[:] = records.x[first:end].reshape(-1)
        host[self._slots : self._order].view(np.int32)[:n] = records.slots[first:end]
        host[self._order : given.words].view(np.int32)[:n] = order
        self._given.put(host[: given.words], stream)

    def fetch(self, n: int, I: int, stream: Any) -> tuple[Any, Any]:
        """Values (OUT_VALUES, n) and codes (OUT_CODES, n), there when the stream is synchronised."""
        _, found = self._lie(n, I)
        told = self._told[: found.words]
        self._found.get(told, stream)
        values = told[: self._codes].view(np.float32)[: OUT_VALUES * n].reshape(OUT_VALUES, n)
        return values, told[self._codes :].view(np.uint16)[: OUT_CODES * n].reshape(OUT_CODES, n)

    def fetch_details(self, n: int, D: int, stream: Any) -> Any:
        """Details (OUT_DETAILS, n, D), likewise."""
        told = self._detail[: OUT_DETAILS * n * D]
        self.details.get(told, stream)
        return told.reshape(OUT_DETAILS, n, D)


class _Workspace(threading.local):
    """What the detectors of a thread share, since only one of them scores at a time: scratch, buffers, streams."""

    def __init__(self) -> None:
        self.copy, self.compute = new_stream(), new_stream()
        self.scratch = {name: DeviceArray(np.float32) for name in _SCRATCH}  # all of 4 bytes
        self.buffers = _Buffers(), _Buffers()
        self.mover = Mover(self.copy)


@cache
def _workspace() -> _Workspace:
    return _Workspace()


class Machine:
    """The kernels and weights of one detector, which are frozen; not thread-safe."""

    def __init__(self, cell: Cell, sizes: Int64, params: Float64, weights: Float32, usual: Float32) -> None:
        with device_errors("start"):
            self._sizes, self._D, self._I = sizes, int(sizes[N_FEATURES]), int(sizes[N_FEATURES] + sizes[N_KNOWN])
            self._constants = {
                at.SIZES: _resident(sizes), at.PARAMS: _resident(params), at.WEIGHTS: _resident(weights),
                at.USUAL: _resident(usual),
            }  # fmt: skip
            O = int(sizes[OUTPUTS])
            self._wide = {
                at.TAKEN: 1, at.INPUTS: self._I, at.REGRESSORS: int(sizes[LDR]), at.NETWORK: O, at.PREDICTION: O,
                at.BLOCKS: block_floats(self._D),
            }  # fmt: skip
            self._most = min(max(_SCRATCH_BYTES // (4 * sum(self._wide.values())), _LEAST), _MOST)
            self._prepare, self._predict = compiled(prepare, 3), compiled(predict, 3)
            self._judge = compiled(judge_kernel(int(sizes[KIND])), 3)
            self._steps, self._readout = self._layers(cell)
            _workspace().mover  # noqa: B018 - made now, with its kernel, and not in the first event's time

    def _layers(self, cell: Cell) -> tuple[list[Step], int]:
        """The steps of all layers, and where the weights of the readout begin."""
        sizes, program, normal = self._sizes, PROGRAMS.index(cell.program), int(cell.layer_norm)
        H, kept, half = int(sizes[HIDDEN]), int(sizes[KEPT]), int(sizes[KEPT] != sizes[PADDED])
        inputs, w0, h0, below = self._I, 0, int(sizes[AT_LAYERS]), -1
        steps = []
        for _ in range(int(sizes[LAYERS])):
            told = w0, inputs, below, h0
            steps.append(layer_step(program, normal, half, inputs, H, told, own=bool(sizes[WEIGHTS] > 0)))
            w0 += int(panels_size(sizes, inputs))
            below, h0, inputs = h0, h0 + 2 * kept, H
        return steps, w0

    @property
    def kernels(self) -> list[Kernel]:
        """Those of a wave, in their order."""
        return [self._prepare, *(step.kernel for step in self._steps), self._predict, self._judge]

    def score(self, rows: Any, records: Records, out: Out) -> None:
        """Scores the records (arrays of the host) on `rows` (`state.device.DeviceRows`); writes `out`, arrays of the host."""
        B = len(records.slots)
        most = min(self._most, max(_SMALLEST, -(-B // _PARTS)))
        with device_errors("make room for a batch"):  # before anything is changed
            work = _workspace()
            desk = self._desk(work, rows, records, min(B, most, rows.room))
            for buffers in work.buffers[: -(-B // most)]:
                buffers.reserve(min(B, most), self._D, self._I, detail=bool(records.detail))
        copy = work.copy if most < B else work.compute
        with device_errors("score a batch; what its streams hold now is unknown, go on from a snapshot"):
            try:
                before = None
                for number, first in enumerate(range(0, B, most)):
                    buffers, n = work.buffers[number % 2], min(most, B - first)
                    self._submit(work, buffers, copy, desk, records, first, n)
                    if before is not None:
                        self._collect(work, copy, *before, records, out)
                    before = buffers, first, n
                if before is not None:
                    self._collect(work, copy, *before, records, out)
            except BaseException:  # the next call must not find this one's copies under way
                copy.synchronize()
                work.compute.synchronize()
                raise

    def _desk(self, work: _Workspace, rows: Any, records: Records, widest: int) -> Int64:
        """A desk without the records, and scratch for waves of so many."""
        desk = np.zeros(at.LENGTH, np.int64)
        for name, array in self._constants.items():
            desk[name] = array.address
        for name, array in work.scratch.items():
            array.reserve(widest * self._wide[name])
            desk[name] = array.address
        desk[at.STATE], desk[at.STATS], desk[at.MARKS] = rows.state.address, rows.stats.address, rows.marks.address
        desk[at.LENGTH_OF_SIZES], desk[at.LENGTH_OF_PARAMS] = (self._constants[of].size for of in (at.SIZES, at.PARAMS))
        desk[at.LENGTH_OF_WEIGHTS], desk[at.ENTRIES] = self._constants[at.WEIGHTS].size, self._wide[at.BLOCKS]
        desk[at.STREAMS], desk[at.WIDEST] = rows.room, widest
        desk[at.SOURCE], desk[at.DETAIL] = records.source, records.detail
        return desk

    def _submit(
        self, work: _Workspace, buffers: _Buffers, copy: Any, desk: Int64, records: Records, first: int, n: int
    ) -> None:
        """Copies n records from `first` on to the device and launches all that is to be done with them."""
        order, waves = np.empty(n, np.int32), np.empty(n + 1, np.int32)
        count = plan_waves(records.slots[first : first + n], order, waves, np.empty(4 * n + 1 + SPARE, np.int32))
        buffers.send(desk, records, first, order, copy)
        if copy is not work.compute:
            buffers.copied.record(copy)
            buffers.copied.wait(work.compute)
        for now, then in pairwise(waves[: count + 1].tolist()):
            self._launch(buffers.desk, now, then - now, work.compute)
        if copy is not work.compute:
            buffers.done.record(work.compute)

    def _launch(self, desk: int, first: int, count: int, stream: Any) -> None:
        blocks, predicted = -(-count // _PREPARE_THREADS), count * HEADS * self._D
        self._prepare.launch(blocks, (_PREPARE_THREADS, 1), stream, 0, desk, first, count)
        for step in self._steps:
            step.launch(desk, count, stream)
        self._predict.launch(
            -(-predicted // _PREDICT_THREADS), (_PREDICT_THREADS, 1), stream, 0, desk, count, self._readout
        )
        self._judge.launch(-(-count // _JUDGE_THREADS), (_JUDGE_THREADS, 1), stream, 0, desk, first, count)

    def _collect(
        self, work: _Workspace, copy: Any, buffers: _Buffers, first: int, n: int, records: Records, out: Out
    ) -> None:
        """Waits for n records and writes their results."""
        if copy is not work.compute:
            buffers.done.wait(copy)
        D, end = self._D, first + n
        values, codes = buffers.fetch(n, self._I, copy)
        details = buffers.fetch_details(n, D, copy) if records.detail else None
        copy.synchronize()
        out.values[:, first:end], out.codes[:, first:end] = values, codes
        detailed, changed = np.flatnonzero(codes[OUT_DETAILED]), np.flatnonzero(codes[OUT_CHANGE])
        if details is not None:
            out.details[:, first:end] = details
        elif len(detailed):
            rows = (detailed + n * np.arange(OUT_DETAILS)[:, None]).reshape(-1)
            told = work.mover.gather(buffers.details, rows, D)
            out.details[:, first + detailed] = told.reshape(OUT_DETAILS, -1, D)
        if len(changed):
            out.episodes[first + changed] = work.mover.gather(buffers.episodes, changed, MARKS)


def _resident(values: Any) -> DeviceArray:
    array = DeviceArray(values.dtype, values.size)
    array.put(np.ascontiguousarray(values), 0)
    cuda.synchronize()
    return array
