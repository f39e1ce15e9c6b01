"""The volume under precision and recall over margins of the labels: the loops of `evaluate.metrics.vus_pr`.

| letter | size |
|---|---|
| U | rows of the stream |
| N | labelled sequences |
| P | pairs of an unlabelled row and its distance to a sequence nearby |
| L | thresholds of the score |
"""

import numpy as np

from streamlstm.kernels.compiling import jit


@jit
def pr_volume(level, first, last, beside, distance, flagged, hard, window, least, weights, soft, met):
    """Mean area under precision and recall over margins 0 .. window, as float64.

    level int64 (U), the first threshold from above that flags a row; first, last int64 (N), of the sequences in order;
    beside, distance int64 (P), sorted by row; flagged, hard float64 (L), rows and labelled rows that each threshold
    flags. least int64 (N), weights float64 (window // 2 + 1) and soft, met float64 (L) are scratch.
    """
    L, P = len(flagged), len(beside)
    for n in range(len(first)):
        least[n] = level[first[n]]
        for u in range(first[n], last[n] + 1):
            least[n] = min(least[n], level[u])
    area = 0.0
    for margin in range(window + 1):
        half = margin // 2
        if half > 0 and margin % 2 == 0:
            _widen(level, first, last, half, least)
        for d in range(1, half + 1):
            weights[d] = np.sqrt(1.0 - d / margin)
        for l in range(L):
            soft[l] = 0.0
        p = 0
        while p < P:
            row, weight = beside[p], 0.0
            while p < P and beside[p] == row:
                if distance[p] <= half:
                    weight += weights[distance[p]]
                p += 1
            soft[level[row]] += min(weight, 1.0)
        share = 1.0 / _count_met(first, last, half, least, met)
        labelled, gained, found, before = hard[L - 1], 0.0, 0.0, 0.0
        for l in range(L):
            gained += soft[l]
            found += met[l]
            recall = min((hard[l] + gained) / (labelled + gained / 2), 1.0) * found * share
            area += (recall - before) * (hard[l] + gained) / flagged[l]
            before = recall
    return area / (window + 1)


@jit(inline=True)
def _widen(level, first, last, half, least):
    """Takes the rows that lie `half` beside each sequence into `least` (N), the lowest level of its rows."""
    for n in range(len(first)):
        if first[n] >= half:
            least[n] = min(least[n], level[first[n] - half])
        if last[n] + half < len(level):
            least[n] = min(least[n], level[last[n] + half])


@jit(inline=True)
def _count_met(first, last, half, least, met):
    """Number of sequences, those joined whose margins touch; writes met (L): how many each threshold is first to meet."""
    for l in range(len(met)):
        met[l] = 0.0
    count, lowest = 0, least[0]
    for n in range(len(first)):
        lowest = min(lowest, least[n])
        if n + 1 == len(first) or first[n + 1] - half > last[n] + half:
            met[lowest] += 1.0
            count += 1
            lowest = least[min(n + 1, len(first) - 1)]
    return count
