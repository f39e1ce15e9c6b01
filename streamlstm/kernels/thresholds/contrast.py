"""`contrast`: a score that stands out from what the stream usually shows, so rarely that the wished alarms are kept.

The level is the larger of two, plus two terms that alarms move:

| term | what it says |
|---|---|
| slow mean + `ABOVE_USUAL` + `DEVIATIONS` mean absolute deviations | what the score usually is |
| peak + `ABOVE_PEAK` | the largest score without alarm; it fades, and the faster the further it stands out |
| fatigue | rises with each alarm by `FATIGUE` of the level's height over the slow mean, and fades |
| offset | falls by `SHIFT` for each wished alarm's worth of time and rises by as much with each alarm, at most to 0 |

The offset is an integral controller: the level sinks until a quiet stream alarms as often as wished, whatever the tail
of its score. Fatigue is its counterpart for restless streams: alarms close together must show more each time, and
as a share of the height that compounds, so that a level soon outgrows what comes back (a spike of 15 every hour: 1.6
alarms a day, where 1 is wished; at most 1 / (`FATIGUE` `FATIGUE_MEMORY`) = 5 of any spike). Both, and the peak, count
time in wished alarms (records times `tail`), so another wish moves them in proportion.

Scores are learned in blocks, and a block only when `CONTRAST_BLOCKS` more have followed, so that the run-up of an
anomaly is not in its own level. An alarm forgets the blocks that wait. While its episode is open the level stands
still; an accepted episode's score becomes the slow mean at once.

A limit that lies only the threshold's floor above SLOW tells that the stream shows nothing that could keep the wish.

Constants are in units of the score (a sum of logarithms: 0 to 2 in calm records, 4 to 50 in anomalies), chosen with those
of episodes for the mean F1 of MSL, ASD and SMD: .73. It is .70 in the mean of neighbours (all constants moved by about
10 %), and without the part: waiting blocks .59, fatigue .64, peak .63, deviation .70, `ABOVE_USUAL` .71, offset .72 (quiet
streams then keep .3 of the wished rate instead of .8). Sharpest is the delay of learning (blocks of 14 or 22 records: .69).
Constants chosen on half of the streams give .70 on the other half.
"""

from streamlstm.kernels.calls import ABSORB, LIMIT_OF
from streamlstm.kernels.compiling import c_function, jit
from streamlstm.kernels.layout import (
    ACCEPTED,
    CONTRAST_BLOCKS,
    EARLY,
    INSIDE,
    LIMIT_FLOOR,
    OPENED,
)

ABOVE_USUAL, DEVIATIONS, ABOVE_PEAK = 1.3, 4.6, 1.2
FATIGUE, SHIFT = 0.12, 0.2
PEAK_MEMORY, FATIGUE_MEMORY = 3.0, 1.6  # wished alarms: until a height of 1 has halved; until 1/e is left
BLOCK, WEIGHT = 18, 0.2  # records of a block, its weight in the slow mean

(ROWS, MEAN, HIGH, WAITING, LEARNED, SLOW, DEVIATION, PEAK, FATIGUE_NOW, OFFSET, ELAPSED, LEVEL, MEANS) = range(13)
HIGHS = MEANS + CONTRAST_BLOCKS
# Time is gathered to a step before anything fades by it: in float32 one record of a thousand a second would be lost.
_STEP, _THINNEST = 1.0 / 1024, 1e-9


@jit(inline=True)
def _level(row, floor):
    """The level of the next score while no episode is open, at least `floor` above the slow mean."""
    usual = row[SLOW] + ABOVE_USUAL + DEVIATIONS * row[DEVIATION]
    level = max(usual, row[PEAK] + ABOVE_PEAK) + row[OFFSET] + row[FATIGUE_NOW]
    return max(level, row[SLOW] + floor)


@jit
def _pass_time(row, early, floor):
    """Fades peak and fatigue by the time gathered, and lowers the offset where the level is not yet at its floor."""
    alarms = row[ELAPSED]
    row[ELAPSED] = 0
    height = max(row[PEAK] - row[SLOW], 0.0)
    row[PEAK] -= height - height / (1.0 + height * alarms / PEAK_MEMORY)
    row[FATIGUE_NOW] *= 1.0 - alarms / FATIGUE_MEMORY
    if not early and _level(row, floor) > row[SLOW] + floor:
        row[OFFSET] -= SHIFT * alarms


@jit
def _learn_block(row):
    """Lets the block that is full wait, and learns the oldest one when all places were taken."""
    if row[WAITING] < CONTRAST_BLOCKS:
        last = int(row[WAITING])
        row[WAITING] += 1
    else:
        row[LEARNED] += 1
        weight = max(WEIGHT, 1.0 / row[LEARNED])
        difference = row[MEANS] - row[SLOW]
        row[DEVIATION] += weight * (abs(difference) - row[DEVIATION])
        row[SLOW] += weight * difference
        row[PEAK] = max(row[PEAK], row[HIGHS])
        last = CONTRAST_BLOCKS - 1
        for j in range(last):
            row[MEANS + j] = row[MEANS + j + 1]
            row[HIGHS + j] = row[HIGHS + j + 1]
    row[MEANS + last], row[HIGHS + last] = row[MEAN], row[HIGH]
    row[ROWS] = row[MEAN] = row[HIGH] = 0


@c_function(ABSORB)
def absorb(row, lesson, score, tail, params):
    """Writes what a scored record teaches: time passes in `tail` wished alarms, its score waits to be learned."""
    if lesson == OPENED:
        row[LEVEL] = _level(row, params[LIMIT_FLOOR])
        row[WAITING] = row[ROWS] = row[MEAN] = row[HIGH] = 0
        row[FATIGUE_NOW] += FATIGUE * (row[LEVEL] - row[SLOW])
        row[OFFSET] = min(row[OFFSET] + SHIFT, 0.0)
    elif lesson == ACCEPTED:
        row[LEVEL] = 0
        row[SLOW] = score
        row[PEAK] = max(row[PEAK], score)
    elif lesson != INSIDE:
        row[LEVEL] = 0
        row[ROWS] += 1
        row[MEAN] += (score - row[MEAN]) / row[ROWS]
        row[HIGH] = max(row[HIGH], score)
        if lesson == EARLY:
            row[PEAK] = max(row[PEAK], score)
        if row[ROWS] == BLOCK:
            _learn_block(row)
    row[ELAPSED] += max(tail, _THINNEST)
    if row[ELAPSED] >= _STEP:
        _pass_time(row, lesson == EARLY, params[LIMIT_FLOOR])


@c_function(LIMIT_OF)
def limit(row, tail, params):
    """The level; of an open episode, that which opened it."""
    return row[LEVEL] if row[LEVEL] > 0.0 else _level(row, params[LIMIT_FLOOR])
