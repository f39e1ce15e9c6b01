"""The parts of a score: how far a record's values lie from three predictions, from their usual unrest, from their range.

1. e = z - prediction, for each head and feature; u^2 = e^2 / (usual * max(recent, usual)): half of the scale is fixed,
   half follows the stream, so that a permanent shift stops alarming (frozen wholly it loses .03 of VUS-PR).
2. variability: the standard deviation of the last ten z, standardised by its own mean and spread, scaled likewise.
3. range: how far z lies outside the stream's 1 % and 99 % quantiles.
4. Each is averaged over the features present, smoothed (EWMA), and calibrated: c = max(0, value - mean) / max(sd, .05).
5. score = sum over parts of weight * ln(1 + c).

A raw linear skip explains level anomalies away; without a skip levels stay visible and fine dynamics are lost: hence
several heads. z is never clipped here: nearly constant features with huge z carry the signal on real servers.

`work` (at w0) holds per record, D values each: z, 1 where present else 0, errors of the heads, u^2 of the heads, u of the
variability, excess over the range (WORK rows).
"""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.kernels.inputs import BOUND, bounded, normalised, spread_of
from streamlstm.kernels.layout import *
from streamlstm.kernels.scalars import log1p32

WORK_ERROR, WORK_SIZE, WORK = 2, 2 + HEADS, 2 + HEADS + PARTS
# Bounds of a part at one record, in usual errors: one value, however wild, must fade within some spans. 256 costs .03 of
# VUS-PR on MSL, none costs .003. Before a stream is live it would also blow up the calibration that is being learned.
_WILD, _WILD_EARLY = np.float32(1000), np.float32(10)
LEAST_SPREAD, _UNREST_FLOOR = np.float32(0.05), np.float32(0.1)
_STILL = np.float32(0.05)  # the least usual unrest: a constant's first wiggle is no alarm
_TENTH = np.float32(1 / RECENT_ROWS)
_ZERO, _ONE = np.float32(0), np.float32(1)


@jit(inline=True)
def read_values(x, stat, D, I, prediction, p0, work, w0):
    """The number of features present; writes z and presence of each. The prediction stands in for a missing value."""
    z, there = work[w0:], work[w0 + D :]
    present = 0
    for d in range(D):
        if np.isnan(x[d]):
            z[d], there[d] = bounded(prediction[p0 + d], BOUND), _ZERO
            continue
        if np.isnan(stat[d]):
            stat[d], stat[I + d], stat[2 * I + d] = x[d], 0.0, spread_of(x[d], 0.0)
        z[d], there[d] = normalised(x[d], stat[d], stat[2 * I + d]), _ONE
        present += 1
    return present


@jit(inline=True)
def head_part(head, D, sizes, state, floor, prediction, p0, work, w0):
    """Sum over features of u^2 of one head; writes its errors and u^2."""
    z, there = work[w0:], work[w0 + D :]
    error, size = work[w0 + (WORK_ERROR + head) * D :], work[w0 + (WORK_SIZE + head) * D :]
    usual, recent = state[sizes[AT_USUAL] + head * D :], state[sizes[AT_ERRORS] + head * D :]
    predicted = prediction[p0 + head * D :]
    for d in range(D):
        fixed = max(usual[d], floor)
        e = there[d] * (z[d] - bounded(predicted[d], BOUND))
        error[d] = e
        size[d] = e * e / (fixed * max(recent[d], fixed))
    total = _ZERO
    for d in range(D):
        total += size[d]
    return total


@jit(inline=True)
def recent_spread(ring, D, d):
    """The standard deviation of feature d's recent values; ring (RECENT_ROWS, D) flat."""
    centre, square = _ZERO, _ZERO
    for k in range(RECENT_ROWS):
        centre += ring[k * D + d]
    centre *= _TENTH
    for k in range(RECENT_ROWS):
        difference = ring[k * D + d] - centre
        square += difference * difference
    return np.sqrt(square * _TENTH)


@jit(inline=True)
def variability_part(D, sizes, state, begun, gain, work, w0):
    """Sum over features of the variability's u; writes each, and runs on the ring of recent z and the recent unrest.

    `begun`: records since the stream began; the first ones fill the ring and give 0.
    """
    z, u = work[w0:], work[w0 + (WORK_SIZE + VARIABILITY) * D :]
    ring, unrest = state[sizes[AT_RING] :], state[sizes[AT_UNREST] :]
    mean, variance = state[sizes[AT_VARIABILITY] :], state[sizes[AT_VARIABILITY] + D :]
    place = ring[(begun % RECENT_ROWS) * D :]
    for d in range(D):
        place[d] = z[d]
    total = _ZERO
    if begun < RECENT_ROWS - 1:
        for d in range(D):
            u[d] = _ZERO
        return total
    for d in range(D):
        spread = np.sqrt(variance[d])
        unit = max(spread, _UNREST_FLOOR)
        fixed = max(spread / unit, _STILL)
        away = abs(recent_spread(ring, D, d) - mean[d]) / unit
        u[d] = away / np.sqrt(fixed * max(unrest[d], fixed))
        unrest[d] += gain * (away - unrest[d])
    for d in range(D):
        total += u[d]
    return total


@jit(inline=True)
def range_part(D, sizes, state, work, w0):
    """Sum over features of how far z lies outside the usual range; writes each feature's excess."""
    z, there, excess = work[w0:], work[w0 + D :], work[w0 + (WORK_SIZE + RANGE) * D :]
    low, high = state[sizes[AT_RANGE] :], state[sizes[AT_RANGE] + D :]
    for d in range(D):
        excess[d] = there[d] * max(max(z[d] - high[d], low[d] - z[d]), _ZERO)
    total = _ZERO
    for d in range(D):
        total += excess[d]
    return total


@jit(inline=True)
def smooth_parts(totals, present, D, gain, first, begun, settled, smooth):
    """Writes the smoothed parts (PARTS) from their totals over the features; `first`: nothing was scored before.

    `begun` as in `variability_part`; `settled`: the parts are calibrated, or calibrated with all records at hand.
    """
    bound = _WILD if settled else _WILD_EARLY
    count, all = np.float32(present), np.float32(D)
    for part in range(PARTS):
        value = totals[part] / (all if part == VARIABILITY else count)
        value = min(np.sqrt(value) if part < VARIABILITY else value, bound)
        if part != VARIABILITY or begun >= RECENT_ROWS - 1:
            smooth[part] += (_ONE if first else gain) * (value - smooth[part])


@jit(inline=True)
def combine(smooth, mean, variance, params, out_parts, b):
    """The score from smoothed parts and their usual mean and variance (PARTS each); writes each part's share of it."""
    score = _ZERO
    for part in range(PARTS):
        unusual = (smooth[part] - mean[part]) / max(np.sqrt(variance[part]), LEAST_SPREAD)
        value = np.float32(params[WEIGHT + part]) * log1p32(max(unusual, _ZERO))
        out_parts[part, b] = value
        score += value
    return score


@jit(inline=True)
def share_out(D, gain, score, parts, b, totals, work, w0, share):
    """Runs on each feature's smoothed share (D) of the score; a part that is 0 shares nothing out."""
    for d in range(D):
        share[d] -= gain * share[d]
    for part in range(PARTS):
        if totals[part] > _ZERO and score > _ZERO:
            weight = parts[part, b] / (score * totals[part])
            size = work[w0 + (WORK_SIZE + part) * D :]
            for d in range(D):
                share[d] += gain * weight * size[d]
