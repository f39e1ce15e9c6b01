"""How good flags and scores are: pure functions on the arrays of one stream.

Sequences and episodes are inclusive pairs of rows, int64 (N, 2). A quotient 0/0 is None. There is no point adjustment:
with it uniform random scores reach an F1 of 0.96 on SMAP (on why: Kim et al., Towards a rigorous evaluation of
time-series anomaly detection, AAAI 2022).

| letter | size |
|---|---|
| U | rows of the stream |
| N, M | sequences, episodes |
| L | thresholds of the score |
"""

import numpy as np
import numpy.typing as npt

from streamlstm.kernels.surface import pr_volume
from streamlstm.types import Int64

Bools = npt.NDArray[np.bool_]


def sequences(label: npt.NDArray[np.generic]) -> Int64:
    """The runs of set rows of label (U), as (first, last), int64 (N, 2)."""
    edge = np.diff((label != 0).astype(np.int8), prepend=0, append=0)
    return np.stack((np.flatnonzero(edge == 1), np.flatnonzero(edge == -1) - 1), axis=1).astype(np.int64)


def overlaps(found: Int64, labelled: Int64) -> Bools:
    """Whether each episode of `found` (M, 2) and each sequence of `labelled` (N, 2) share a row, bool (M, N)."""
    result: Bools = (found[:, None, 0] <= labelled[None, :, 1]) & (labelled[None, :, 0] <= found[:, None, 1])
    return result


def overlap_counts(found: Int64, labelled: Int64) -> tuple[int, int, int]:
    """(true, false, missed): sequences that an episode meets, episodes that meet none, sequences that none meets."""
    meets = overlaps(found, labelled)
    true = int(meets.any(axis=0).sum())
    return true, int((~meets.any(axis=1)).sum()), len(labelled) - true


def precision_recall_f1(true: int, false: int, missed: int) -> tuple[float | None, float | None, float | None]:
    """Precision, recall and F1 of such counts; None where nothing was flagged, nothing was labelled, or neither."""
    precision = true / (true + false) if true + false else None
    recall = true / (true + missed) if true + missed else None
    f1 = 2 * true / (2 * true + false + missed) if true + false + missed else None
    return precision, recall, f1


def delays(found: Int64, labelled: Int64) -> Int64:
    """Rows from each sequence's start to the opening of the first episode that meets it, int64 (N).

    0 if that one opened earlier, -1 if none meets it.
    """
    opening = np.where(overlaps(found, labelled), found[:, None, 0], np.iinfo(np.int64).max)
    first = opening.min(axis=0, initial=np.iinfo(np.int64).max)
    missed = first == np.iinfo(np.int64).max
    return np.where(missed, -1, np.maximum(first - labelled[:, 0], 0)).astype(np.int64)


def average_precision(label: npt.NDArray[np.generic], score: npt.NDArray[np.floating]) -> float | None:
    """Area under precision and recall of score (U) by rows, equal scores taken together; None without labelled rows.

    The sum over distinct scores, from above, of the recall gained times the precision reached; 0 to 1.
    """
    positive = label != 0
    if not positive.any():
        return None
    order = np.argsort(-score, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(positive[order])[last_of_ties]
    return float(np.sum(np.diff(hits, prepend=0) * (hits / (last_of_ties + 1))) / hits[-1])


def vus_pr(
    label: npt.NDArray[np.generic], score: npt.NDArray[np.floating], window: int = 100, levels: int = 250
) -> float | None:
    """Volume under the precision-recall surface of score (U), 0 to 1; None without labelled rows.

    The mean, over margins 0 to `window`, of the area under precision and recall at `levels` quantiles of the score,
    where rows up to half a margin beside a sequence count as partly labelled, and recall is multiplied by the share of
    sequences, so widened, that are met. Paparrizos et al., Volume under the surface, PVLDB 15 (2022), in the variant
    that the TSB-AD benchmark calls `opt`.
    """
    positive = label != 0
    labelled = sequences(positive)
    if not len(labelled):
        return None
    rows = len(score)
    descending = -score.astype(np.float64)
    limits = np.sort(descending)[np.linspace(0, rows - 1, levels).astype(np.int64)]  # (L)
    level = np.searchsorted(limits, descending).astype(np.int64)  # (U), first threshold from above that flags the row
    flagged = np.cumsum(np.bincount(level, minlength=levels)).astype(np.float64)  # (L)
    hard = np.cumsum(np.bincount(level[positive], minlength=levels)).astype(np.float64)  # (L)
    first, last = (np.ascontiguousarray(column) for column in labelled.T)
    scratch = np.empty(len(first), np.int64), np.empty(window // 2 + 1), np.empty(levels), np.empty(levels)
    return float(
        pr_volume(level, first, last, *_beside(labelled, positive, window // 2), flagged, hard, window, *scratch)
    )


def _beside(labelled: Int64, positive: Bools, reach: int) -> tuple[Int64, Int64]:
    """Unlabelled rows, ascending, at most `reach` beside a sequence, and their distance; a row between two occurs twice."""
    step = np.arange(1, reach + 1, dtype=np.int64)
    row = np.concatenate((labelled[:, :1] - step, labelled[:, 1:] + step)).ravel()
    distance = np.tile(step, 2 * len(labelled))
    free = np.flatnonzero((row >= 0) & (row < len(positive)))
    free = free[~positive[row[free]]]
    free = free[np.argsort(row[free], kind="stable")]
    return row[free], distance[free]
