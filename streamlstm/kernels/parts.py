"""The parts of a score: how far a record's values lie from three predictions, from their usual unrest, from their range.

1. e = z - prediction, for each head and feature; u^2 = e^2 / (usual * max(recent, usual)): half of the scale is fixed,
   half follows the stream, so that a permanent shift stops alarming (frozen wholly it loses .03 of VUS-PR).
2. variability: the standard deviation of the last ten z, standardised by its own mean and spread, scaled likewise.
3. range: how far z lies outside the stream's 1 % and 99 % quantiles.
4. Each is averaged over the features present, smoothed (EWMA), and calibrated: c = max(0, value - mean) / max(sd, .05).
5. score = sum over parts of weight * ln(1 + c).

A raw linear skip explains level anomalies away; without a skip levels stay visible and fine dynamics are lost: hence
several heads. z is never clipped here: nearly constant features with huge z carry the signal on real servers.

All of it runs on a `Block` of several records, see `block`: elements are its features, entries its parts.
"""

import numpy as np

from streamlstm.kernels.block import *
from streamlstm.kernels.compiling import LANES, jit
from streamlstm.kernels.inputs import BOUND, bounded_lanes
from streamlstm.kernels.lanes import absolute, log1p, maximum, minimum, splat, square_root, where
from streamlstm.kernels.layout import *

# Bounds of a part at one record, in usual errors: one value, however wild, must fade within some spans. 256 costs .03 of
# VUS-PR on MSL, none costs .003. Before a stream is live it would also blow up the calibration that is being learned.
WILD, WILD_EARLY = np.float32(1000), np.float32(10)
LEAST_SPREAD, _UNREST_FLOOR = np.float32(0.05), np.float32(0.1)
_STILL = np.float32(0.05)  # the least usual unrest: a constant's first wiggle is no alarm
_TENTH = np.float32(1 / RECENT_ROWS)
# What one record may move, in usual errors: the recent error, and the usual error itself. Without the bounds one value
# of 1e30 makes a stream blind for thousands of records; a lasting shift is followed within some.
_JUMP, _OUTLIER = np.float32(100), np.float32(100)
_QUANTILE, _QUANTILE_GAIN = np.float32(0.01), np.float32(20)
_ZERO, _ONE = np.float32(0), np.float32(1)


@jit(inline=True)
def begin_parts(block, params):
    """Writes the entries that are the same for all records: the parts' weights, and which of them are squares."""
    for r in range(block.records):
        fill_parts(block, IS_ROOT, r, _ONE)
        set_entry(block, IS_ROOT, r * PARTS + VARIABILITY, _ZERO)
        set_entry(block, IS_ROOT, r * PARTS + RANGE, _ZERO)
        for part in range(PARTS):
            set_entry(block, PART_WEIGHT, r * PARTS + part, np.float32(params[WEIGHT + part]))


@jit(inline=True)
def measure(block, floor, gain):
    """Writes each element's errors, u^2 of the heads, u of the variability and excess over the range."""
    for e in range(0, block.elements, LANES):
        z, there = get(block, Z, e), get(block, THERE, e)
        for head in range(HEADS):
            fixed = maximum(get(block, USUAL + head, e), splat(floor))
            error = there * (z - bounded_lanes(get(block, PREDICTED + head, e), BOUND))
            put(block, ERROR + head, e, error)
            put(block, SIZE + head, e, error * error / (fixed * maximum(get(block, ERRORS_NOW + head, e), fixed)))
        centre, square = splat(_ZERO), splat(_ZERO)
        for k in range(RECENT_ROWS):
            centre = centre + get(block, RING + k, e)
        centre = centre * _TENTH
        for k in range(RECENT_ROWS):
            difference = get(block, RING + k, e) - centre
            square = square + difference * difference
        recent = square_root(square * _TENTH)
        put(block, UNREST_NOW, e, recent)
        full = get(block, FULL, e) > _ZERO  # the first records of a stream fill the ring and give 0
        spread = square_root(get(block, VARIABILITY_VARIANCE, e))
        unit = maximum(spread, splat(_UNREST_FLOOR))
        fixed, unrest = maximum(spread / unit, splat(_STILL)), get(block, UNREST, e)
        away = absolute(recent - get(block, VARIABILITY_MEAN, e)) / unit
        u = away / square_root(fixed * maximum(unrest, fixed))
        put(block, SIZE + VARIABILITY, e, where(full, u, splat(_ZERO)))
        put(block, UNREST, e, where(full, unrest + gain * (away - unrest), unrest))
        outside = maximum(z - get(block, HIGH, e), get(block, LOW, e) - z)
        put(block, SIZE + RANGE, e, there * maximum(outside, splat(_ZERO)))


@jit(inline=True)
def add_up(block, D, r):
    """Writes the sums of the parts over the features of record r, from the first feature on."""
    for part in range(PARTS):
        total = element(block, SIZE + part, r * D)
        for d in range(1, D):
            total += element(block, SIZE + part, r * D + d)
        set_entry(block, TOTAL, r * PARTS + part, total)


@jit(inline=True)
def combine(block):
    """Smooths the parts of all records and writes what each part gives to its record's score.

    Reads sums, divisors, bounds and gains; a gain of 0 leaves the smoothed part as it was.
    """
    for e in range(0, block.entries, LANES):
        value = entries(block, TOTAL, e) / entries(block, COUNT, e)
        value = where(entries(block, IS_ROOT, e) > _ZERO, square_root(value), value)
        value = minimum(value, entries(block, MOST, e))
        gain, smooth = entries(block, GAIN, e), entries(block, SMOOTH, e)
        smooth = where(gain > _ZERO, smooth + gain * (value - smooth), smooth)
        set_entries(block, SMOOTH, e, smooth)
        spread = maximum(square_root(entries(block, PART_VARIANCE, e)), splat(LEAST_SPREAD))
        unusual = maximum((smooth - entries(block, PART_MEAN, e)) / spread, splat(_ZERO))
        set_entries(block, VALUE, e, entries(block, PART_WEIGHT, e) * log1p(unusual))


@jit(inline=True)
def share_out(block, D, gain):
    """Runs on each feature's smoothed share of the score; a part that is 0 shares nothing out.

    Reads the values and sums of the parts, and the score in all entries of a record.
    """
    for e in range(0, block.entries, LANES):
        total, score = entries(block, TOTAL, e), entries(block, SCORE_NOW, e)
        weight = entries(block, VALUE, e) / (score * total)
        shared = (total > _ZERO) & (score > _ZERO)
        set_entries(block, SHARE_WEIGHT, e, where(shared, gain * weight, splat(_ZERO)))
    for r in range(block.records):
        for part in range(PARTS):
            fill(block, SHARING + part, r * D, D, entry(block, SHARE_WEIGHT, r * PARTS + part))
    for e in range(0, block.elements, LANES):
        share = get(block, SHARE, e)
        share = share - gain * share
        for part in range(PARTS):
            share = share + get(block, SHARING + part, e) * get(block, SIZE + part, e)
        put(block, SHARE, e, share)


@jit(inline=True)
def absorb_recent(block, floor, gain):
    """Writes the recent errors of the heads."""
    for e in range(0, block.elements, LANES):
        there = get(block, THERE, e)
        for head in range(HEADS):
            recent = get(block, ERRORS_NOW + head, e)
            largest = maximum(maximum(get(block, USUAL + head, e), splat(floor)), recent)
            size = minimum(absolute(get(block, ERROR + head, e)), _JUMP * largest)
            put(block, ERRORS_NOW + head, e, recent + there * gain * (size - recent))


@jit(inline=True)
def absorb_errors(block, floor):
    """Writes the usual errors of the heads (root mean square), mean and variance of the variability, and the range.

    What a record weighs in them stands in LEARN_WEIGHT; elements of weight 0 stay as they are.
    """
    for e in range(0, block.elements, LANES):
        weight, there = get(block, LEARN_WEIGHT, e), get(block, THERE, e)
        learns = weight > _ZERO
        for head in range(HEADS):
            usual = get(block, USUAL + head, e)
            fixed = maximum(usual, splat(floor))
            size = minimum(absolute(get(block, ERROR + head, e)), _OUTLIER * fixed)
            learned = square_root(fixed * fixed + there * weight * (size * size - fixed * fixed))
            put(block, USUAL + head, e, where(learns, learned, usual))
        z, low, high = get(block, Z, e), get(block, LOW, e), get(block, HIGH, e)
        step = there * minimum(_QUANTILE_GAIN * weight, splat(_ONE))
        below = where(z < low, splat(_ONE), splat(_ZERO))
        above = where(z > high, splat(_ONE), splat(_ZERO))
        put(block, LOW, e, where(learns, low + step * (_QUANTILE - below), low))
        put(block, HIGH, e, where(learns, high + step * (above - _QUANTILE), high))
        learns = learns & (get(block, FULL, e) > _ZERO)
        mean, variance = get(block, VARIABILITY_MEAN, e), get(block, VARIABILITY_VARIANCE, e)
        difference = get(block, UNREST_NOW, e) - mean
        put(block, VARIABILITY_MEAN, e, where(learns, mean + weight * difference, mean))
        spread = (_ONE - weight) * (variance + weight * difference * difference)
        put(block, VARIABILITY_VARIANCE, e, where(learns, spread, variance))


@jit(inline=True)
def absorb_parts(block):
    """Writes mean and variance of the smoothed parts (West's update), with the weights in PART_LEARN unless those are 0."""
    for e in range(0, block.entries, LANES):
        weight, mean, variance = (
            entries(block, PART_LEARN, e),
            entries(block, PART_MEAN, e),
            entries(block, PART_VARIANCE, e),
        )
        difference, learns = entries(block, SMOOTH, e) - mean, weight > _ZERO
        set_entries(block, PART_MEAN, e, where(learns, mean + weight * difference, mean))
        spread = (_ONE - weight) * (variance + weight * difference * difference)
        set_entries(block, PART_VARIANCE, e, where(learns, spread, variance))
