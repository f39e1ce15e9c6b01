"""The kernels of a wave beside the step: one thread per record before it and after it, one per prediction between.

What a thread does with its record is the code of `kernels.score`, on a block of one record. A wave holds records of
different streams: those that stand in ORDER from `first` on. TAKEN says of each row of the wave which slot it is, or -1 for
a record that its stream does not take.
"""

from functools import cache
from typing import Any

import numpy as np
from numba.core import types

from streamlstm.kernels import calls, wave
from streamlstm.kernels.arguments import Out, Pool, Records, Setup, Tap
from streamlstm.kernels.block import FIELDS, NAMES, make_block
from streamlstm.kernels.cuda import desk as at
from streamlstm.kernels.cuda.compiling import Target, cuda, device
from streamlstm.kernels.cuda.desk import doubles, doubles_2, doubles_3, floats, floats_2, ints, longs, longs_2, shorts_2
from streamlstm.kernels.cuda.lanes import CONSTANTS, TWINS, fma
from streamlstm.kernels.cuda.units import read_value
from streamlstm.kernels.layout import *
from streamlstm.kernels.parts import begin_parts
from streamlstm.kernels.score import drop_row, enter_row, prepare_row, score_block
from streamlstm.kernels.thresholds import functions_of
from streamlstm.kernels.times import unwanted

_target = Target(TWINS, CONSTANTS)
_prepare, _drop, _unwanted, _make_block, _begin = (
    _target(function) for function in (prepare_row, drop_row, unwanted, make_block, begin_parts)
)


def _setup(desk):
    sizes = longs(desk[at.SIZES], desk[at.LENGTH_OF_SIZES])
    params = doubles(desk[at.PARAMS], desk[at.LENGTH_OF_PARAMS])
    weights = floats(desk[at.WEIGHTS], desk[at.LENGTH_OF_WEIGHTS])
    return Setup(sizes, params, weights, floats(desk[at.USUAL], HEADS * sizes[N_FEATURES]))


def _pool(desk, sizes):
    S = desk[at.STREAMS]
    return Pool(
        floats_2(desk[at.STATE], S, sizes[STATE_WIDTH]),
        doubles_2(desk[at.STATS], S, sizes[STATS_WIDTH]),
        longs_2(desk[at.MARKS], S, MARKS),
    )


def _records(desk, sizes):
    B = desk[at.RECORDS]
    return Records(
        ints(desk[at.SLOTS], B), longs(desk[at.TIME], B), doubles_2(desk[at.X], B, sizes[N_FEATURES] + sizes[N_KNOWN]),
        longs(desk[at.ROW], B), desk[at.SOURCE], desk[at.DETAIL], np.int64(0),
    )  # fmt: skip


def _out(desk, sizes):
    B = desk[at.RECORDS]
    return Out(
        floats_2(desk[at.VALUES], OUT_VALUES, B), shorts_2(desk[at.CODES], OUT_CODES, B),
        doubles_3(desk[at.DETAILS], OUT_DETAILS, B, sizes[N_FEATURES]), longs_2(desk[at.EPISODES], B, MARKS),
    )  # fmt: skip


def _record(desk, place):
    """The number in the batch of the record that stands at a place of the waves."""
    return np.int64(ints(desk[at.ORDER], desk[at.RECORDS])[place])


_setup, _pool, _records, _out, _record = (
    device(function, inline=True) for function in (_setup, _pool, _records, _out, _record)
)


def block_floats(D: int) -> int:
    """float32 values of scratch that a record of D features needs, see `kernels.block`; a lane is one value."""
    return FIELDS * D + NAMES * PARTS


def prepare(address, first, count):
    """Writes what the network reads at `count` records, one thread each, and which of them are taken."""
    desk, i = longs(address, at.LENGTH), cuda.grid(1)
    if i < count:
        setup = _setup(desk)
        sizes = setup.sizes
        pool, records, out = _pool(desk, sizes), _records(desk, sizes), _out(desk, sizes)
        tap = Tap(out.values, out.values, out.values, out.codes, records.slots)  # never read: weights are frozen
        taken, b = ints(desk[at.TAKEN], desk[at.WIDEST]), _record(desk, first + i)
        s = records.slots[b]
        if _unwanted(pool.marks[s], records.time[b], sizes[DROPS]):
            _drop(b, s, setup, pool, records, tap, out)
            taken[i] = -1
        else:
            taken[i] = s
            I = sizes[N_FEATURES] + sizes[N_KNOWN]
            z = floats(desk[at.INPUTS], desk[at.WIDEST] * I)
            regressors = floats(desk[at.REGRESSORS], desk[at.WIDEST] * sizes[LDR])
            _prepare(b, s, setup, pool, records, tap, z, i * I, regressors, i * sizes[LDR])


def predict(address, count, w0):
    """Writes the LSTM's part of the predictions and the whole ones, one thread for each row and column.

    Those of the readout begin at w0 and lie as `wave.step_network` reads them; each sum is its chain of fused multiply-adds.
    """
    desk = longs(address, at.LENGTH)
    sizes = longs(desk[at.SIZES], desk[at.LENGTH_OF_SIZES])
    D, O, H, P, C = sizes[N_FEATURES], sizes[OUTPUTS], sizes[HIDDEN], sizes[N_REGRESSORS], sizes[N_CALENDAR]
    e = cuda.grid(1)
    row, column = e // (HEADS * D), e % (HEADS * D)
    taken = ints(desk[at.TAKEN], desk[at.WIDEST])
    if row < count and taken[row] >= 0:
        s = taken[row]
        lds, S = sizes[STATE_WIDTH], desk[at.STREAMS]
        state = floats(desk[at.STATE], S * lds)
        weights = floats(desk[at.WEIGHTS], desk[at.LENGTH_OF_WEIGHTS])
        marks = longs_2(desk[at.MARKS], S, MARKS)
        regressors = floats(desk[at.REGRESSORS], desk[at.WIDEST] * sizes[LDR])
        begin = marks[s, OWN] * sizes[WEIGHTS] + w0
        total = weights[begin + column]
        h0 = sizes[AT_LAYERS] + 2 * (sizes[LAYERS] - 1) * sizes[KEPT]
        for k in range(H):
            h = (
                read_value(0, state, s * lds + h0, k)
                if sizes[KEPT] == sizes[PADDED]
                else read_value(1, state, s * lds + h0, k)
            )
            total = fma(h, weights[begin + O + k * O + column], total)
        floats(desk[at.NETWORK], desk[at.WIDEST] * O)[row * O + column] = total
        head = column // D
        skip, read, terms = begin + (1 + H) * O, row * sizes[LDR] + sizes[PADDED], P
        for before in range(head):
            skip += P * _skip_lanes(D, before)[1]
            read += P
        if head == BARE:
            read, terms = read - C, C
        lane, wide = _skip_lanes(D, head)
        for k in range(terms):
            total = fma(regressors[read + k], weights[skip + k * wide + column - lane], total)
        floats(desk[at.PREDICTION], desk[at.WIDEST] * O)[row * O + column] = total


_skip_lanes = Target({}, {})(wave.skip_lanes)
"""The CPU's: weights lie in whole vectors."""


@cache
def judge_kernel(kind: int) -> Any:
    """The kernel that scores `count` records and absorbs them, one thread each, for one kind of threshold."""
    enter, score = _judging(kind)

    def judge(address, first, count):
        desk, i = longs(address, at.LENGTH), cuda.grid(1)
        if i < count:
            s = ints(desk[at.TAKEN], desk[at.WIDEST])[i]
            if s >= 0:
                setup = _setup(desk)
                sizes = setup.sizes
                pool, records, out = _pool(desk, sizes), _records(desk, sizes), _out(desk, sizes)
                tap = Tap(out.values, out.values, out.values, out.codes, records.slots)
                D, O, rows = sizes[N_FEATURES], sizes[OUTPUTS], desk[at.WIDEST]
                network, prediction = floats(desk[at.NETWORK], rows * O), floats(desk[at.PREDICTION], rows * O)
                block = _make_block(floats_2(desk[at.BLOCKS], desk[at.ENTRIES], count)[:, i], D, np.int64(1))
                _begin(block, setup.params)
                batch, slots, places = (
                    cuda.local.array(1, types.int32), cuda.local.array(1, types.int32), cuda.local.array(1, types.int32),
                )  # fmt: skip
                broken, present = cuda.local.array(1, types.int32), cuda.local.array(1, types.int32)
                b = _record(desk, first + i)
                batch[0], slots[0], places[0] = b, s, i
                if enter(b, s, np.int64(0), setup, pool, records, tap, out, prediction, i * O, block, broken, present):
                    score(block, batch, slots, places, broken, present, setup, pool, records, tap, out, network)

    return judge


def _judging(kind: int) -> tuple[Any, Any]:
    """`enter_row` and `score_block` with the functions of one threshold instead of calls by address."""
    absorb, limit = (_target(function.function) for function in functions_of(kind))

    def call_absorb(address, row, lesson, score, tail, params):
        absorb(row, lesson, np.float32(score), tail, params)

    def call_limit(address, row, tail, params):
        return np.float64(limit(row, tail, params))

    target = Target(TWINS | {calls.call_absorb: device(call_absorb), calls.call_limit: device(call_limit)}, CONSTANTS)
    return target(enter_row), target(score_block)
