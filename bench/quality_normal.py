"""Streams in which nothing is wrong: every alarm on them is a false one."""

from collections.abc import Callable

import numpy as np

from streamlstm.types import Float64

ROWS_PER_DAY = 1440
DAYS, FIT_DAYS = 20, 5
STREAMS = 21


def _sine(rng: np.random.Generator, minutes: Float64) -> Float64:
    return 5 * np.sin(2 * np.pi * minutes / rng.uniform(30, 300)) + rng.normal(size=len(minutes))


def _autoregressive(rng: np.random.Generator, minutes: Float64) -> Float64:
    memory, noise = rng.uniform(0.8, 0.99), rng.normal(size=len(minutes))
    y = 0.0
    return np.array([y := memory * y + e for e in noise.tolist()])


def _levels(rng: np.random.Generator, minutes: Float64) -> Float64:
    """Jumps between three levels at random times, as a machine that is switched."""
    changed = rng.random(len(minutes)) < 1 / rng.uniform(20, 120)
    chosen = rng.integers(0, 3, len(minutes))[np.maximum.accumulate(np.where(changed, np.arange(len(minutes)), 0))]
    return 10.0 * chosen + 0.3 * rng.normal(size=len(minutes))


def _counts(rng: np.random.Generator, minutes: Float64) -> Float64:
    return rng.poisson(rng.uniform(0.5, 20), len(minutes)).astype(np.float64)


def _daily(rng: np.random.Generator, minutes: Float64) -> Float64:
    turn = 2 * np.pi * (minutes / ROWS_PER_DAY + rng.random())
    return 20 + 5 * np.sin(turn) + 2 * np.sin(2 * turn) + rng.normal(size=len(minutes))


def _heavy_tailed(rng: np.random.Generator, minutes: Float64) -> Float64:
    return rng.standard_t(3, len(minutes))


def _correlated(rng: np.random.Generator, minutes: Float64) -> Float64:
    """Five features driven by two hidden waves."""
    periods = rng.uniform(60, 600, 2)
    hidden = np.sin(2 * np.pi * minutes[:, None] / periods) + 0.3 * rng.normal(size=(len(minutes), 2))
    features: Float64 = hidden @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(len(minutes), 5))
    return features


KINDS: dict[str, Callable[[np.random.Generator, Float64], Float64]] = {
    "sine": _sine,
    "autoregressive": _autoregressive,
    "levels": _levels,
    "counts": _counts,
    "daily": _daily,
    "heavy-tailed": _heavy_tailed,
    "correlated": _correlated,
}


def normal_stream(number: int, days: int = DAYS) -> tuple[str, Float64]:
    """The kind and the readings (U, D), one a minute, of stream `number`; kinds take turns."""
    kind = list(KINDS)[number % len(KINDS)]
    rng = np.random.default_rng(number)
    x = KINDS[kind](rng, np.arange(days * ROWS_PER_DAY, dtype=np.float64))
    return kind, x.reshape(len(x), -1)
