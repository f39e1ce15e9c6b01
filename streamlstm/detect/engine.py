"""Sets up the compiled call and calls it: weights, the pool's rows, outputs and scratch as arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from streamlstm.config import Config
from streamlstm.errors import ConfigError
from streamlstm.kernels import online as learning
from streamlstm.kernels import thresholds
from streamlstm.kernels.arguments import Out
from streamlstm.kernels.batch import score_parallel, score_serial
from streamlstm.kernels.bptt import Work, make_work
from streamlstm.kernels.compiling import ARITHMETIC, threads_are_safe
from streamlstm.kernels.layout import (
    GROUP_SEATS,
    HEADS,
    KEPT,
    MARKS,
    ONLINE,
    OUT_CODES,
    OUT_DETAILS,
    OUT_VALUES,
    PADDED,
    SEGMENT,
    STEP,
    WAVE,
    WEIGHTS,
    WINDOW,
)
from streamlstm.kernels.online import COUNTERS, LANES_PER_TILE, SCALED, Learner
from streamlstm.kernels.online_each import score_each
from streamlstm.kernels.plan import SPARE
from streamlstm.kernels.wave import wave_for
from streamlstm.model.layout import Layout
from streamlstm.model.network import Model, Network
from streamlstm.model.parameters import initial_theta, network_theta, theta_network
from streamlstm.types import Float32, Float64, Int32, Int64

_PARALLEL_NS = 100_000.0  # of work below which one thread is done before a second has woken up (up to 100 us)
_RECORD_NS, _WEIGHT_NS = 250.0, 0.03  # of a record, and of each weight that it meets; EPYC, November 2026


LEARNED = ("counters", "theta", "first", "second", "scale", "gram", "cross", "skip", "regressors", "target",
           "windows", "closed")  # fmt: skip
"""Fields of a `Learner` that the next update depends on; of weights per stream they have a row for each."""


class Engine:
    """Weights and scratch of one partition; frozen, or learning online. `sizes` hold this process' addresses."""

    arithmetic = ARITHMETIC
    """Engines of one class give the same bits."""

    def __init__(self, config: Config, layout: Layout, model: Model | None, *, connect: bool = True) -> None:
        self.layout = layout
        self._rate = config.learning.rate
        D = layout.num_features
        network = model.network if model else None
        self.usual: Float32 = model.usual if model else np.ones(HEADS * D, np.float32)
        self.sizes = layout.sizes.copy()
        if connect:
            self.connect()
        # Without a learner nothing may reach for its arrays: the kernels see a frozen detector with the same rows.
        self._frozen_sizes = self.sizes.copy()
        self._frozen_sizes[ONLINE] = 0
        self.learner: Learner | None = None
        self._work: Work | None = None
        own = model.own if model else ()
        # Rows of what new streams begin with, where each learns weights of its own; else 0.
        self._base = 1 + len(own) if layout.sizes[ONLINE] and config.model.weights == "per_stream" else 0
        if layout.sizes[ONLINE]:
            self.learner = make_learner(layout, network, config.training.seed)
            self._work = make_work(
                self.learner.cell,
                int(layout.sizes[WINDOW]), LANES_PER_TILE, D + layout.num_known, int(layout.sizes[PADDED]),
                layout.num_layers, layout.num_outputs,
            )  # fmt: skip
            if network is None:  # the untrained one
                network = theta_network(
                    layout.cell, self.learner.theta, self.learner.scale, self.learner.skip, D + layout.num_known,
                    layout.hidden_size, int(layout.sizes[PADDED]), layout.num_layers, layout.num_outputs,
                )  # fmt: skip
        assert network is not None, "frozen weights need a model; Detector checks it"
        self.weights: Float32 = np.concatenate([of.packed() for of in (network, *own)])
        size = self.weights.size // (1 + len(own))
        self._parallel_rows = _PARALLEL_NS / (_RECORD_NS + _WEIGHT_NS * size)
        self.sizes[WEIGHTS] = self._frozen_sizes[WEIGHTS] = size if own or self._base else 0
        if self.learner is not None and self._base:
            begun = [self.learner, *(make_learner(layout, of, config.training.seed) for of in own)]
            self.learner = _with(self.learner, lambda name: np.stack([getattr(of, name) for of in begun]))
        self.room: float = 0 if self._base else np.inf  # streams that have theirs, or the place for it
        self._plan = np.zeros(0, np.int32)
        self._scratch = np.zeros((0, layout.scratch_size), np.float32)

    def connect(self) -> None:
        """Writes into `sizes` where the functions lie that kernels call by address; compiles, or loads, them."""
        layout = self.layout
        step = layout.cell.step if layout.sizes[KEPT] == layout.sizes[PADDED] else layout.cell.step_half
        self.sizes[STEP], self.sizes[WAVE] = step.address, wave_for(layout.sizes).address
        thresholds.connect(self.sizes)

    def score(
        self, rows: Any, slots: Int32, time: Int64, x: Float64, row: Int64, source: int, *,
        detail: bool, threads: int = 1, learn: bool = True,
    ) -> Out:  # fmt: skip
        """One compiled call: scores B records and changes `rows` (and, learning, the weights); fresh output arrays."""
        B = len(slots)
        if learn and self._base and B:
            self.reserve(int(slots.max()) + 1)
        threads = threads if self._parallel_rows <= B and self.learner is None else 1
        out = self.outputs(B)
        arguments = self.arguments(rows, slots, time, x, row, out, detail=detail, threads=threads, learn=learn)
        self.call(arguments, source, threads=threads, learn=learn)
        return out

    def start_threads(self, rows: Any, threads: int) -> None:
        """Scores no records on so many threads, which starts them; ConfigError where Numba has no safe ones."""
        nothing, x = np.zeros(0, np.int64), np.zeros((0, self.layout.num_features + self.layout.num_known))
        slots, out = np.zeros(0, np.int32), self.outputs(0)
        arguments = self.arguments(rows, slots, nothing, x, nothing, out, detail=False, threads=threads, learn=False)
        self.call(arguments, 0, threads=threads, learn=False)
        if not threads_are_safe():
            raise ConfigError(
                f"runtime.threads: {threads} need OpenMP or TBB, and Numba finds neither; install libgomp1 or the "
                "package tbb, or set runtime.threads: 1"
            )

    def outputs(self, B: int) -> Out:
        """Arrays for the results of B records; not filled: a page that no record writes costs nothing."""
        return Out(
            np.empty((OUT_VALUES, B), np.float32),
            np.empty((OUT_CODES, B), np.uint16),
            np.empty((OUT_DETAILS, B, self.layout.num_features)),
            np.empty((B, MARKS), np.int64),
        )

    def arguments(
        self, rows: Any, slots: Int32, time: Int64, x: Float64, row: Int64, out: Out, *,
        detail: bool, threads: int = 1, learn: bool = True,
    ) -> tuple[Any, ...]:  # fmt: skip
        """What `call` takes for these arrays; good for any number of calls while they and the weights stay the same."""
        B = len(slots)
        wanted = 3 * B + 1 + SPARE + GROUP_SEATS * threads + (B + 2 if self.learner is not None else 0)
        if len(self._plan) < wanted:
            self._plan = np.zeros(wanted, np.int32)
        if len(self._scratch) != threads:
            self._scratch = np.zeros((threads, self.layout.scratch_size), np.float32)
        sizes = self.sizes if learn and self.learner is not None else self._frozen_sizes
        return (
            (sizes, self.layout.params, self.weights, self.usual, rows.state, rows.stats, rows.marks, slots, time, x, row),
            (int(detail), out.values, out.codes, out.details, out.episodes, self._plan, self._scratch),
        )  # fmt: skip

    def reserve(self, streams: int) -> None:
        """Room for so many streams to learn weights of their own, where they do; doubled, and untouched it takes no memory."""
        learner = self.learner
        if learner is None or streams <= self.room:
            return
        self.room = max(64, 1 << (streams - 1).bit_length())
        rows = self._base + self.room

        def grown(array: Any, wide: int) -> Any:
            out = np.zeros((rows * wide, *array.shape[1:]), array.dtype)
            out[: len(array)] = array
            return out

        self.learner = _with(learner, lambda name: grown(getattr(learner, name), 1))
        self.weights = grown(self.weights, int(self.sizes[WEIGHTS]))

    def learned(self, streams: int) -> dict[str, Any]:
        """Weights that learn and what their learning depends on, by name, of so many streams; empty where they are frozen."""
        if self.learner is None:
            return {}
        rows = self._base + streams if self._base else None
        weights = self.weights if rows is None else self.weights[: rows * int(self.sizes[WEIGHTS])]
        return {"weights": weights} | {f"learner.{name}": getattr(self.learner, name)[:rows] for name in LEARNED}

    def take_learned(self, tensors: dict[str, Any]) -> None:
        """Goes on from what `learned` gave."""
        if self.learner is None:
            return
        self.reserve(len(tensors["learner.theta"]) - self._base)
        mine = {"weights": self.weights} | {f"learner.{name}": getattr(self.learner, name) for name in LEARNED}
        for name, array in mine.items():
            (array[: len(tensors[name])] if self._base else array)[...] = tensors[name]

    def call(self, arguments: tuple[Any, ...], source: int, *, threads: int = 1, learn: bool = True) -> None:
        """The compiled call itself, for records of `source` (its number)."""
        before, after = arguments
        if learn and self.learner is not None:
            what = self.learner, self._work, self._rate
            if self._base:
                score_each(*before, source, *after, *what, self._base)
            else:
                learning.score_online(*before, source, *after, *what)
        elif threads > 1:
            score_parallel(*before, source, *after)
        else:
            score_serial(*before, source, *after)


def _with(learner: Learner, array: Callable[[str], Any]) -> Learner:
    """`learner` with other arrays of what it has learned."""
    changed: dict[str, Any] = {name: array(name) for name in LEARNED}
    return learner._replace(**changed)


def make_learner(layout: Layout, network: Network | None, seed: int) -> Learner:
    """What learns, before its first record; it goes on from `network` where there is one."""
    sizes = layout.sizes
    D, I, L, H = layout.num_features, layout.num_features + layout.num_known, layout.num_layers, layout.hidden_size
    Hp, O, P, N, T = (
        int(sizes[PADDED]),
        layout.num_outputs,
        layout.num_regressors,
        int(sizes[SEGMENT]),
        int(sizes[WINDOW]),
    )
    theta = network_theta(network, Hp, O) if network else initial_theta(layout.cell, I, H, Hp, L, O, seed)
    n = len(theta)
    targets = HEADS * D
    skip = np.zeros((HEADS, P, D))
    counters = np.zeros(COUNTERS, np.int64)
    if network:
        skip[:] = network.skip.transpose(0, 2, 1)
        counters[SCALED] = 1
    window = 2 * L * Hp + T * (I + targets)
    tile = LANES_PER_TILE
    f4 = np.float32
    return Learner(
        layout.cell.kernels(H), counters, theta, np.zeros(n, f4), np.zeros(n, f4), np.zeros(n, f4), np.zeros(n, f4),
        np.ones(targets, f4),
        np.zeros((2, P, P)), np.zeros((2, P, D)), np.zeros((P, P)), skip,
        np.zeros((N, 2 * P), f4), np.zeros((N, D), f4), np.zeros((N, window), f4), np.zeros((1, N), np.uint16),
        np.zeros(T * tile * I, f4), np.zeros(T * tile * targets, f4), np.zeros(L * tile * Hp, f4), np.zeros(L * tile * Hp, f4),
    )  # fmt: skip
