"""From single outcomes to the figures of a table: means over streams, bootstrap intervals, counts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bench.quality_data import NabFile
from bench.quality_product import BOTH, LINEAR, Judged, Normal
from streamlstm.evaluate.metrics import precision_recall_f1
from streamlstm.evaluate.nab import PROFILES, sweep
from streamlstm.types import Float64

RESAMPLES = 10_000
FIXED = 0.5  # of NAB's scores from 0 to 1: a severity of 1
_INTERVAL = (5, 95)  # per cent

Row = dict[str, Any]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 90 % percentile interval when the values are drawn anew with replacement."""
    x = np.asarray(values)
    drawn = np.random.default_rng(0).integers(0, len(x), (RESAMPLES, len(x)))
    low, high = np.percentile(x[drawn].mean(axis=1), _INTERVAL)
    return float(x.mean()), float(low), float(high)


def by_method(judged: Iterable[Judged], per_day: float | None) -> list[Row]:
    """A row for each set and method: VUS-PR with its interval over streams, flags, and alarms promised and kept.

    A stream's value is the mean over its seeds; counts are summed over streams and averaged over seeds.
    """
    groups: dict[tuple[str, str], list[Judged]] = {}
    for one in judged:
        groups.setdefault((one.group, one.method), []).append(one)
    rows = []
    for (group, method), ones in groups.items():
        seeds = len({one.seed for one in ones})
        row: Row = {"set": group, "method": method, "streams": len({one.stream for one in ones}), "seeds": seeds}
        row["vus_pr"], row["vus_pr_low"], row["vus_pr_high"] = interval(list(_per_stream(ones).values()))
        row["vus_pr_by_seed"] = [
            float(np.mean([one.vus_pr for one in ones if one.seed == seed])) for seed in sorted({o.seed for o in ones})
        ]
        row["auc_pr"] = float(np.mean([one.auc_pr for one in ones]))
        if ones[0].true is not None:
            counts: dict[str, Any] = {
                name: sum(getattr(one, name) for one in ones) / seeds for name in ("true", "false", "missed")
            }
            row |= counts | {"f1": precision_recall_f1(*counts.values())[2]}
            row["flagged"] = float(np.mean([(one.flagged or 0) / one.rows for one in ones]))
            row["days"] = sum(one.days for one in ones) / seeds
            row["promised"] = None if per_day is None else per_day * row["days"]
        rows.append(row)
    return rows


def differences(judged: Sequence[Judged]) -> list[Row]:
    """What the LSTM adds to the linear skip: per set the mean difference of VUS-PR over the same streams, and its interval."""
    rows = []
    for group in dict.fromkeys(one.group for one in judged):
        with_, without = (
            _per_stream([one for one in judged if (one.group, one.method) == (group, method)])
            for method in (BOTH, LINEAR)
        )
        mean, low, high = interval([value - without[stream] for stream, value in with_.items()])
        rows.append({"set": group, "difference": mean, "low": low, "high": high})
    return rows


def _per_stream(ones: Iterable[Judged]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for one in ones:
        values.setdefault(one.stream, []).append(one.vus_pr)
    return {stream: float(np.mean(found)) for stream, found in values.items()}


def nab_rows(files: Sequence[NabFile], scores: Mapping[int, Sequence[Mapping[str, Float64]]]) -> list[Row]:
    """A row for each way to read the scores and each profile: best and fixed threshold, means over the seeds.

    `scores` holds by seed what was said of each file. Beside them stands a detector that ignores the data: an alarm
    every 6 % of a file.
    """
    windows = {file.name: file.windows for file in files}
    blind = [{"an alarm every 6 % of a file": _every(len(file.x), 0.06)} for file in files]
    rows = []
    for runs in ([blind], list(scores.values())):
        for reading in runs[0][0]:
            for profile, weights in PROFILES.items():
                by_file = [{file.name: one[reading] for file, one in zip(files, run, strict=True)} for run in runs]
                sweeps = [sweep(windows, said, weights) for said in by_file]
                rows.append({
                    "method": reading, "profile": profile,
                    "best": float(np.mean([found.best()[1] for found in sweeps])),
                    "best_threshold": [found.best()[0] for found in sweeps],
                    "fixed": float(np.mean([found.at(FIXED) for found in sweeps])),
                })  # fmt: skip
    return rows


def _every(rows: int, share: float) -> Float64:
    score = np.zeros(rows)
    score[:: max(int(share * rows), 1)] = 1
    return score


def normal_rows(found: Sequence[Normal], per_day: float | None) -> list[Row]:
    """Alarms promised and kept on normal streams: for each mode all kinds, then each kind."""
    rows = []
    for mode in dict.fromkeys(one.mode for one in found):
        for kind in ("all", *dict.fromkeys(one.kind for one in found)):
            ones = [one for one in found if one.mode == mode and kind in ("all", one.kind)]
            days = sum(one.days for one in ones)
            rows.append({
                "mode": mode, "kind": kind, "streams": len({one.stream for one in ones}), "days": days,
                "promised": None if per_day is None else per_day * days, "kept": sum(one.alarms for one in ones),
                "most_per_day": max((one.alarms / one.days for one in ones if one.days), default=None),
            })  # fmt: skip
    return rows
