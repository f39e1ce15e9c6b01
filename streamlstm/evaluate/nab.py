"""The score of the Numenta Anomaly Benchmark, by its published rules: Lavin and Ahmad, Evaluating real-time anomaly
detection algorithms, ICMLA 2015.

A row is an alarm where its score reaches the threshold. Inside a window only the best placed alarm counts, from almost 1
at the window's start down to almost 0 at its end; a window without alarm costs `miss_weight`. An alarm outside costs
nothing right behind a window and up to `false_weight` further on or before the first. The first 15 % of a file, at most
750 rows, are probation and count for nothing. The sum over all files is put on a scale where silence is 0 and 100 is
one alarm at the very start of each window and nothing else.

| letter | size |
|---|---|
| U | rows of a file |
| N | windows of a file, inclusive pairs of rows, int64 (N, 2), ascending and apart |
| T | distinct scores of all files, and silence |
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamlstm.errors import InputError
from streamlstm.types import Float64, Int64

_STEEPNESS = 5.0
_FAR = 3.0  # window widths behind a window from which on an alarm costs its full weight


@dataclass(frozen=True, slots=True)
class Profile:
    """What an alarm outside windows and a window without alarm cost; a window that is met earns up to 1."""

    false_weight: float
    miss_weight: float


PROFILES = {
    "standard": Profile(0.11, 1.0),
    "reward_low_FP": Profile(0.22, 1.0),
    "reward_low_FN": Profile(0.11, 2.0),
}


@dataclass(frozen=True, slots=True)
class Sweep:
    """The score of every threshold: thresholds (T), descending from infinity, which is silence, and scores (T)."""

    thresholds: Float64
    scores: Float64

    def best(self) -> tuple[float, float]:
        """The threshold with the highest score, of equal ones the highest, and that score."""
        at = int(np.argmax(self.scores))
        return float(self.thresholds[at]), float(self.scores[at])

    def at(self, threshold: float) -> float:
        """The score of one threshold that was fixed in advance."""
        return float(self.scores[np.searchsorted(-self.thresholds, -threshold, "right") - 1])


def probation(rows: int) -> int:
    """The rows at the start of a file that count for nothing."""
    return min(int(0.15 * rows), 750)


def reward(position: npt.ArrayLike) -> Float64:
    """What an alarm is worth by its place in window widths: -1 is a window's start, 0 its end, above 0 behind it."""
    place = np.asarray(position, np.float64)
    value: Float64 = np.where(place >= _FAR, -1.0, 2 / (1 + np.exp(_STEEPNESS * np.minimum(place, _FAR))) - 1)
    return value


def row_values(rows: int, windows: Int64, profile: Profile) -> tuple[Float64, Int64]:
    """What an alarm at each row of a file is worth (U), and the number of the window that it lies in (U), -1 for none.

    Behind a window of one row, for which the rules give no width, distances are in rows.
    """
    value, inside = np.full(rows, -profile.false_weight), np.full(rows, -1, np.int64)
    ends = [*windows[1:, 0], rows]
    for number, ((first, last), end) in enumerate(zip(windows, ends, strict=False)):
        to_end = np.arange(last - first + 1, 0, -1)
        value[first : last + 1] = reward(-to_end / len(to_end)) / reward(-1.0)
        inside[first : last + 1] = number
        behind = np.arange(1, end - last)
        value[last + 1 : end] = profile.false_weight * reward(behind / max(last - first, 1))
    return value, inside


def sweep(
    windows: Mapping[str, Int64],
    scores: Mapping[str, npt.NDArray[np.floating]],
    profile: Profile = PROFILES["standard"],
) -> Sweep:
    """The score of every threshold, one for all files: windows (N, 2) and score (U) by file, both of the same files.

    Raises InputError where a file is missing on either side, since leaving a file out would raise the score, where a
    score is NaN, or a window is not a pair of rows of its file.
    """
    if windows.keys() != scores.keys():
        missing = sorted(windows.keys() ^ scores.keys())
        raise InputError(
            f"nab: {len(missing)} files lack windows or scores: {', '.join(missing[:3])}; every file counts"
        )
    levels, gains, count = [], [], 0
    for name, score in scores.items():
        _check(name, windows[name], score)
        begin = probation(len(score))
        value, inside = row_values(len(score), windows[name], profile)
        order = begin + np.argsort(-score[begin:], kind="stable")
        counted = np.unique(inside[begin:])
        for window in counted[counted >= 0]:
            count += 1
            rows = order[inside[order] == window]
            best = np.maximum.accumulate(value[rows])
            value[rows] = np.diff(best, prepend=-profile.miss_weight)
        levels.append(score[order].astype(np.float64))
        gains.append(value[order])
    if count == 0:
        raise InputError("nab: no file has a window behind its probation; there is nothing to find")
    level, gain = np.concatenate(levels), np.concatenate(gains)
    order = np.argsort(-level, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(level[order])), len(order) - 1)
    gained = np.append(0.0, np.cumsum(gain[order])[last_of_ties])
    perfect_over_silence = count * (1 + profile.miss_weight)
    return Sweep(np.append(np.inf, level[order][last_of_ties]), 100 * gained / perfect_over_silence)


def _check(name: str, windows: Int64, score: npt.NDArray[np.floating]) -> None:
    bounds = windows.ravel()
    step = np.diff(bounds, prepend=-1, append=len(score))
    if (step[1::2] < 0).any() or (step[::2] <= 0).any():
        raise InputError(f"nab: {name}: windows must be ascending, apart and within {len(score)} rows, got {windows}")
    if np.isnan(score).any():
        raise InputError(f"nab: {name}: {int(np.isnan(score).sum())} scores are NaN; give 0 where nothing is known")
