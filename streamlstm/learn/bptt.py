"""Training the network: stretches of consecutive records side by side, windows of truncated BPTT, early stopping."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamlstm.config import Config
from streamlstm.errors import InputError
from streamlstm.kernels.bptt import draw_masks, make_work, window_gradient
from streamlstm.kernels.layout import PADDED
from streamlstm.kernels.optimisers import OPTIMISERS, clip_gradient, update_parameters
from streamlstm.learn.schedules import rate_at
from streamlstm.model.layout import Layout
from streamlstm.model.parameters import initial_theta, matrices
from streamlstm.types import Float32

_CHECKS = 12  # looks at the held-out tail in one training


@dataclass(frozen=True, slots=True)
class Series:
    """One stream: inputs (n, I) float32 and target (n, 3 D) float32 in units of each head's error, NaN for nothing."""

    inputs: Float32
    target: Float32


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands: update of updates, training loss per value, held-out loss (NaN before the first look), the
    update's step size."""

    update: int
    updates: int
    loss: float
    held_out: float
    rate: float
    rows_per_second: float


@dataclass(frozen=True, slots=True)
class _Lanes:
    """Stretches side by side: inputs (n, B, I), target (n, B, D), with n a multiple of the window."""

    inputs: Float32
    target: Float32

    @property
    def values(self) -> int:
        return int((~np.isnan(self.target)).sum())


def train_lstm(
    series: list[Series], config: Config, layout: Layout, on_progress: Callable[[Progress], None] | None
) -> tuple[Float32, dict[str, Any]]:
    """Parameters (flat, as in `kernels.bptt`) with the least held-out loss, and a summary of the training.

    The untrained network, whose readout is zero, is among the candidates: an LSTM that does not better the skip on the
    held-out tail is not used. Without `holdout` the last parameters are kept.
    """
    settings = config.training
    I, D = series[0].inputs.shape[1], series[0].target.shape[1]
    Hp, L, O, T = int(layout.sizes[PADDED]), layout.num_layers, layout.num_outputs, settings.window
    cell = layout.cell.kernels()
    theta = initial_theta(layout.cell, I, layout.hidden_size, Hp, L, O, settings.seed)
    cuts = [round(len(s.inputs) * (1 - settings.holdout)) for s in series]
    fitted = make_lanes(
        [Series(s.inputs[:n], s.target[:n]) for s, n in zip(series, cuts, strict=True)], T, settings.lanes
    )
    held = make_lanes(
        [Series(s.inputs[n:], s.target[n:]) for s, n in zip(series, cuts, strict=True)], T, settings.lanes
    )
    first, second, gradient = (np.zeros_like(theta) for _ in range(3))
    optimiser = OPTIMISERS[settings.optimiser]
    drops, rng = settings.dropout + settings.recurrent_dropout > 0, np.random.default_rng(settings.seed)
    decay = np.float32(settings.weight_decay) * matrices(layout.cell, I, layout.hidden_size, Hp, L, O)
    huber = settings.huber if settings.loss == "huber" else math.inf
    nothing = np.zeros(0, np.float32)
    works: dict[int, Any] = {}

    def run(lanes: _Lanes, begin: int, h: Float32, c: Float32, scale: float, out: Float32) -> float:
        x, target = lanes.inputs[begin : begin + T], lanes.target[begin : begin + T]
        B = x.shape[1]
        if B not in works:
            works[B] = make_work(cell, T, B, I, Hp, L, O)
        if drops:
            draw_masks(works[B], settings.dropout, settings.recurrent_dropout, rng if len(out) else None)
        return float(
            window_gradient(
                cell,
                theta,
                x.reshape(-1),
                target.reshape(-1),
                h,
                c,
                T,
                B,
                I,
                Hp,
                L,
                D,
                O,
                huber,
                scale,
                works[B],
                out,
            )
        )

    def held_out_loss() -> float:
        total, values = 0.0, 0
        for lanes in held:
            h, c = (np.zeros(L * lanes.inputs.shape[1] * Hp, np.float32) for _ in range(2))
            total += sum(run(lanes, begin, h, c, 1.0, nothing) for begin in range(0, len(lanes.inputs), T))
            values += lanes.values
        return total / max(values, 1)

    best, best_loss, best_update, worse = theta.copy(), held_out_loss() if held else math.inf, 0, 0
    untrained = best_loss
    began, update, rows, loss, held_loss = time.perf_counter(), 0, 0, math.nan, best_loss
    every = max(1, settings.updates // _CHECKS)
    while update < settings.updates and worse < settings.patience:
        for lanes in fitted:
            n, B = lanes.inputs.shape[:2]
            h, c = (np.zeros(L * B * Hp, np.float32) for _ in range(2))
            for begin in range(0, n, T):
                if update == settings.updates or worse == settings.patience:
                    break
                gradient[:] = 0
                loss = run(lanes, begin, h, c, 1 / (B * T), gradient) / D
                update += 1
                rows += B * T
                if not math.isfinite(clip_gradient(gradient, settings.clip_norm, settings.clip_value or math.inf)):
                    raise InputError(
                        f"fit: the gradient is not finite at update {update}; lower training.rate ({settings.rate})"
                    )
                rate = rate_at(settings.schedule, settings.rate, update, settings.updates)
                update_parameters(optimiser, theta, gradient, first, second, decay, update, rate)
                if update % every == 0 or update == settings.updates:
                    if held:
                        held_loss = held_out_loss()
                        worse = 0 if held_loss < best_loss else worse + 1
                    if not held or held_loss < best_loss:
                        best, best_loss, best_update = theta.copy(), held_loss, update
                if on_progress is not None:
                    seconds = max(time.perf_counter() - began, 1e-9)
                    on_progress(Progress(update, settings.updates, loss, held_loss, rate, rows / seconds))
    summary = {
        "updates": update,
        "best_update": best_update,
        "loss": _number(loss),
        "held_out_loss": _number(best_loss),
        "held_out_loss_of_skip": _number(untrained),
    }
    return best, summary


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
    pieces = [
        (s.inputs[begin : begin + length], s.target[begin : begin + length])
        for s in series
        for begin in range(0, len(s.inputs), length)
    ]
    pieces.sort(key=lambda piece: -len(piece[0]))  # equal lengths side by side: little of a group is padding
    groups = []
    for first in range(0, len(pieces), lanes):
        group = pieces[first : first + lanes]
        n = -(-len(group[0][0]) // window) * window
        x = np.zeros((n, len(group), group[0][0].shape[1]), np.float32)
        target = np.full((n, len(group), group[0][1].shape[1]), np.nan, np.float32)
        for b, (inputs, wished) in enumerate(group):
            x[: len(inputs), b], target[: len(inputs), b] = inputs, wished
        groups.append(_Lanes(x, target))
    return groups
