"""Training the network: stretches of consecutive records side by side, windows of truncated BPTT, early stopping."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from streamlstm.config import Config
from streamlstm.errors import InputError
from streamlstm.kernels.compiling import padded
from streamlstm.kernels.inputs import BOUND
from streamlstm.kernels.layout import HEADS, PADDED
from streamlstm.kernels.optimisers import OPTIMISERS, clip_gradient, update_parameters
from streamlstm.learn import divergence
from streamlstm.learn.checkpoint import Checkpoint, Course
from streamlstm.learn.input_norm import inverse_deviation, normalise_window
from streamlstm.learn.outlook import Aim
from streamlstm.learn.schedules import rate_at
from streamlstm.learn.weight_norm import WeightNorm
from streamlstm.learn.windows import Draws, Windows
from streamlstm.model.layout import Layout
from streamlstm.model.parameters import fold_inputs, initial_theta, matrices
from streamlstm.types import Float32

_CHECKS = 12  # looks at the held-out tail in one training
_POINTS = 100  # of the loss curve


@dataclass(frozen=True, slots=True)
class Series:
    """One stream: inputs (n, I) and target (n, 3 D + M) float32, in units of each head's error, then of the forecast's (see
    `Aim`), NaN for nothing; linear (n, F), what the raw skip said of the record before, for scheduled sampling, else F is 0."""

    inputs: Float32
    target: Float32
    linear: Float32

    def part(self, rows: slice) -> Self:
        """Some of its rows."""
        return type(self)(self.inputs[rows], self.target[rows], self.linear[rows])


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands: update of updates, training loss per value of the heads, with that of a forecast; held-out
    loss likewise (NaN before the first look), the update's step size."""

    update: int
    updates: int
    loss: float
    held_out: float
    rate: float
    rows_per_second: float


@dataclass(frozen=True, slots=True)
class _Lanes:
    """Stretches side by side: inputs (n, B, I), target (n, B, 3 D + M), linear (n, B, F), with n a multiple of the window."""

    inputs: Float32
    target: Float32
    linear: Float32

    def values(self, targets: int) -> int:
        """How many there are in the first columns of the target."""
        return int((~np.isnan(self.target[:, :, :targets])).sum())


def train_lstm(
    series: list[Series],
    features: tuple[str, ...],
    unit: Float32,
    aim: Aim,
    config: Config,
    layout: Layout,
    on_progress: Callable[[Progress], None] | None,
    checkpoint: str | Path | None = None,
) -> tuple[Float32, dict[str, Any]]:
    """Parameters (flat, as in `kernels.bptt`, with `outputs` columns of the readout) with the least held-out loss, and a
    summary of the training. `unit` (D) is that of the raw head, in deviations.

    The untrained network, whose readout is zero, is among the candidates: an LSTM that does not better the skip on the
    held-out tail is not used. Without `holdout` the last parameters are kept. `checkpoint` is a file where an interrupted
    training is kept and goes on from, with the same bits as one that was not; at the end it is gone.
    """
    training = _Training(series, features, unit, aim, config, layout)
    data = (array for s in series for array in (s.inputs, s.target))
    kept = Checkpoint(checkpoint, config, data) if checkpoint is not None else None
    if kept is not None and (found := kept.read(training.course)) is not None:
        training.course = found
    elif training.held:
        training.begin()
    began, before = time.perf_counter(), training.course.rows
    whole = training.course
    try:
        while not training.done():
            if kept is not None:
                whole = training.course.copy()  # an update may be cut in two
                kept.write_at_times(whole)
            training.update()
            if on_progress is not None:
                course, seconds = training.course, max(time.perf_counter() - began, 1e-9)
                on_progress(
                    Progress(
                        course.update, config.training.updates, course.loss, course.held_loss, course.rate,
                        (course.rows - before) / seconds,
                    )
                )  # fmt: skip
    except KeyboardInterrupt:
        if kept is not None:
            kept.write(whole)
        raise
    if kept is not None:
        kept.remove()
    return training.course.best, training.summary()


def outputs(aim: Aim, layout: Layout) -> int:
    """Columns of the readout in training: those of the heads, then those of the forecast, rounded up to whole vectors."""
    return padded(HEADS * layout.num_features + aim.outputs)


class _Training:
    """The updates of one training, and where it stands (`course`)."""

    def __init__(
        self, series: list[Series], features: tuple[str, ...], unit: Float32, aim: Aim, config: Config, layout: Layout
    ) -> None:
        settings, T = config.training, config.training.window
        I, self._targets = series[0].inputs.shape[1], HEADS * layout.num_features
        Hp, L, O = int(layout.sizes[PADDED]), layout.num_layers, outputs(aim, layout)
        self._settings, self._features = settings, features
        self._layout, self._outputs, self._shape = layout, O, (I, layout.hidden_size, Hp, L)
        theta = initial_theta(
            layout.cell,
            I,
            layout.hidden_size,
            Hp,
            L,
            O,
            settings.seed,
            orthogonal=settings.recurrent_start == "orthogonal",
        )
        theta[len(theta) - O + self._targets :][: aim.outputs] = aim.bias
        cuts = [round(len(s.inputs) * (1 - settings.holdout)) for s in series]
        self._fitted = make_lanes([s.part(slice(n)) for s, n in zip(series, cuts, strict=True)], T, settings.lanes)
        self.held = make_lanes([s.part(slice(n, None)) for s, n in zip(series, cuts, strict=True)], T, settings.lanes)
        self._gradient = np.zeros_like(theta)
        self._decay = np.float32(settings.weight_decay) * matrices(layout.cell, I, layout.hidden_size, Hp, L, O)
        self._norm = WeightNorm(layout.cell, *self._shape) if settings.weight_norm else None
        learned = theta.copy()
        if self._norm is not None:
            learned = self._norm.begun(theta)
            self._decay = np.concatenate([self._decay, np.zeros(self._norm.gains, np.float32)])
        self._feedback = np.zeros((4, series[0].linear.shape[1]), np.float32)
        if self._feedback.size:
            self._feedback[:] = [unit, np.full_like(unit, min(config.model.clip, BOUND)), 0 * unit, np.ones_like(unit)]
        self._windows = Windows(
            layout.cell.kernels(layout.hidden_size), T, (I, Hp, L, self._targets, O),
            settings.huber if settings.loss == "huber" else math.inf, aim.ahead, config.runtime.num_threads,
            self._feedback,
        )  # fmt: skip
        self.course = Course.begun(learned, theta, I, settings.seed)

    def begin(self) -> None:
        """Looks at the untrained network."""
        course = self.course
        course.best_loss = course.untrained = course.held_loss = self._held_out_loss()

    def done(self) -> bool:
        """Whether no update follows."""
        return (
            self.course.stopped != ""
            or self.course.update >= self._settings.updates
            or self.course.worse >= self._settings.patience
        )

    def update(self) -> None:
        """The next window: its gradient, clipped, and a step along it; now and then a look at the held-out tail."""
        settings, course, T = self._settings, self.course, self._settings.window
        lanes = self._fitted[course.group]
        n, B = lanes.inputs.shape[:2]
        if course.begin == 0:
            course.h, course.c = self._windows.state(B)
        gradient = self._gradient
        gradient[:] = 0
        theta = self._theta()
        course.loss = self._run(theta, lanes, course.begin, course.h, course.c, 1 / (B * T), gradient) / self._targets
        if self._norm is not None:
            gradient = self._norm.gradient(course.theta, gradient)
        course.update += 1
        course.rows += B * T
        norm = clip_gradient(gradient, settings.clip_norm, settings.clip_value or math.inf)
        if not math.isfinite(course.loss) or not math.isfinite(norm):
            self._stop("gradient" if math.isfinite(course.loss) else "loss", theta, lanes)
            return
        course.rate = rate_at(settings.schedule, settings.rate, course.update, settings.updates)
        update_parameters(
            OPTIMISERS[settings.optimiser], course.theta, gradient, course.first, course.second, self._decay,
            course.update, course.rate,
        )  # fmt: skip
        if course.update % max(1, settings.updates // _CHECKS) == 0 or course.update == settings.updates:
            self._look()
        every = max(1, settings.updates // _POINTS)
        course.since += course.loss / every
        if course.update % every == 0:
            course.curve.append((course.update, course.since, course.held_loss))
            course.since = 0.0
        course.begin += T
        if course.begin >= n:
            course.begin, course.group = 0, (course.group + 1) % len(self._fitted)

    def _stop(self, what: str, theta: Float32, lanes: _Lanes) -> None:
        """Ends the training with the best parameters so far, InputError where there are none yet."""
        course, settings, (_, _, Hp, _), O = self.course, self._settings, self._shape, self._outputs
        readout = theta[-(Hp + 1) * O :].reshape(Hp + 1, O)[:, : self._targets]
        target = lanes.target[course.begin : course.begin + settings.window, :, : self._targets]
        top = self._windows.top(target.shape[1]).reshape(-1, Hp)
        losses = divergence.losses_by_feature(top, readout, target.reshape(-1, self._targets))
        course.stopped = (
            f"the {what} is not finite at update {course.update}, {divergence.told(losses, self._features)}; "
            f"lower training.rate ({settings.rate})"
        )
        if course.best_update == 0 and not self.held:
            raise InputError(f"fit: {course.stopped}")

    def _theta(self) -> Float32:
        """The parameters as kernels read them."""
        learned = self.course.theta
        return learned if self._norm is None else self._norm.multiplied_out(learned)

    def _finished(self) -> Float32:
        """The parameters as they would stand in the model."""
        mean, variance = self.course.inputs
        if not self._settings.input_norm:
            return self._theta()
        return fold_inputs(self._layout.cell, self._theta(), mean, inverse_deviation(variance), *self._shape)

    def _look(self) -> None:
        course = self.course
        if self.held:
            course.held_loss = self._held_out_loss()
            course.worse = 0 if course.held_loss < course.best_loss else course.worse + 1
            better = course.held_loss < course.best_loss
        else:  # the last ones are kept, but of a training that breaks off those that were not yet running away
            better = course.loss < course.least or course.update == self._settings.updates
            course.least = min(course.loss, course.least)
        if better:
            course.best, course.best_loss, course.best_update = self._finished().copy(), course.held_loss, course.update

    def _held_out_loss(self) -> float:
        nothing = np.zeros(0, np.float32)
        theta, total, values = self._finished(), 0.0, 0
        for lanes in self.held:
            h, c = self._windows.state(lanes.inputs.shape[1])
            for begin in range(0, len(lanes.inputs), self._settings.window):
                total += self._run(theta, lanes, begin, h, c, 1.0, nothing)
            values += lanes.values(self._targets)
        return total / max(values, 1)

    def _run(
        self, theta: Float32, lanes: _Lanes, begin: int, h: Float32, c: Float32, scale: float, out: Float32
    ) -> float:
        settings, course, trains = self._settings, self.course, len(out) > 0
        window = slice(begin, begin + settings.window)
        x, target = lanes.inputs[window], lanes.target[window]
        if settings.input_norm and trains:
            mean, factor = normalise_window(x, target, course.inputs)
            x = ((x - mean) * factor).astype(np.float32)
            F = self._feedback.shape[1]
            self._feedback[2:] = mean[:F], factor[:F]
        share = settings.scheduled_sampling * course.update / settings.updates if trains else 0.0
        draws = Draws(settings.dropout, settings.recurrent_dropout, share, course.rng if trains else None)
        return self._windows.run(theta, x, target, lanes.linear[window], h, c, scale, out, draws)

    def summary(self) -> dict[str, Any]:
        """What the training came to; `curve` are update, mean loss since the point before, held-out loss; `stopped` tells
        why it ended early with the best parameters until then, and is there for one that did."""
        course = self.course
        stopped = {"stopped": course.stopped} if course.stopped else {}
        return stopped | {
            "updates": course.update,
            "best_update": course.best_update,
            "loss": _number(course.loss),
            "held_out_loss": _number(course.best_loss),
            "held_out_loss_of_skip": _number(course.untrained),
            "curve": [[update, _number(loss), _number(held)] for update, loss, held in course.curve],
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def make_lanes(series: list[Series], window: int, lanes: int) -> list[_Lanes]:
    """Stretches of equal length cut from all streams, `lanes` side by side; rows beyond a stream's end are masked.

    Every record lies in exactly one stretch.
    """
    total = sum(len(s.inputs) for s in series)
    if total == 0:
        return []
    length = max(window, -(-total // (lanes * window)) * window)
    pieces = [s.part(slice(begin, begin + length)) for s in series for begin in range(0, len(s.inputs), length)]
    pieces.sort(key=lambda piece: -len(piece.inputs))  # equal lengths side by side: little of a group is padding
    groups = []
    for first in range(0, len(pieces), lanes):
        group = pieces[first : first + lanes]
        n = -(-len(group[0].inputs) // window) * window
        x = np.zeros((n, len(group), group[0].inputs.shape[1]), np.float32)
        target = np.full((n, len(group), group[0].target.shape[1]), np.nan, np.float32)
        linear = np.full((n, len(group), group[0].linear.shape[1]), np.nan, np.float32)
        for b, piece in enumerate(group):
            rows = len(piece.inputs)
            x[:rows, b], target[:rows, b], linear[1:rows, b] = piece.inputs, piece.target, piece.linear[1:]
        groups.append(_Lanes(x, target, linear))
    return groups
