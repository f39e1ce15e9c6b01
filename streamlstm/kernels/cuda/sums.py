"""The sums that a thread of `step` keeps in registers: acc[r * gates + n] of its unit, for some rows and gates.

They are a local array whose every index is a constant here, so that no compiler leaves it in memory: loops in a kernel's
Python are unrolled by one of NVIDIA's and not by the next.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils as numba_cgutils
from numba.core import types

from streamlstm.kernels.cells.program import LARGEST_SUM, UNITS
from streamlstm.kernels.compiling import intrinsic_with
from streamlstm.kernels.cuda.lanes import NUMBERS, Scalar
from streamlstm.kernels.vector import FLOAT, I64, data

cgutils: Any = numba_cgutils
WARP = 32
"""Threads side by side, each with a unit."""
CHUNK = 16
"""Rows of weights in shared memory at once: 8 KiB of an LSTM's."""
_TOGETHER = 8
"""Loads that a thread has under way, at most: all 64 of a block of one warp take more registers than there are."""


def _chained(rows, N, all_gates, places, acc, shared, z, across, w, count):
    for k in range(count):
        for n in range(N):
            for r in range(rows):
                of = r * all_gates + places[n]
                acc[of] = NUMBERS.fma(shared[z + k * across + r], shared[w + (k * N + n) * WARP], acc[of])


@intrinsic_with(_chained)
def add_products(typing_context, rows, N, all_gates, places, acc, shared, z, across, w, count):
    """Adds `count` >= 1 products to the sums acc[r * all_gates + places[n]]: of z[k * across + r] and w[(k * N + n) * WARP].

    The rows are read in vectors; z and across are multiples of what a vector holds.
    """
    literals = rows, N, all_gates, across
    if not all(isinstance(of, types.IntegerLiteral) for of in literals):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        R, gates, all_of, step = (of.literal_value for of in literals)
        _, _, _, place, acc, shared, z, _, w, count = arguments
        e, kinds = Scalar(builder), signature.args
        sums, memory = data(context, builder, kinds[4], acc), data(context, builder, kinds[5], shared)
        at_sum = [
            [builder.add(I64(r * all_of), builder.extract_value(place, n)) for n in range(gates)] for r in range(R)
        ]
        wide = min(R, 4)
        found: dict[int, Any] = {}

        def rows_of(r: int, k: Any) -> Any:
            if r % wide == 0:
                first = builder.gep(memory, [builder.add(builder.add(z, I64(r)), builder.mul(k, I64(step)))])
                if wide == 1:
                    found[r] = builder.load(first)
                else:
                    vector = builder.load(builder.bitcast(first, ir.VectorType(FLOAT, wide).as_pointer()))
                    vector.align = 4 * wide
                    found.update((r + j, builder.extract_element(vector, ir.IntType(32)(j))) for j in range(wide))
            return found[r]

        def weights_of(n: int, k: Any) -> Any:
            return e.load(memory, builder.add(builder.add(w, I64(n * WARP)), builder.mul(k, I64(gates * WARP))))

        totals = e.accumulate([[e.load(sums, of) for of in row] for row in at_sum], count, weights_of, rows_of)
        for places_of, values in zip(at_sum, totals, strict=True):
            for of, value in zip(places_of, values, strict=True):
                e.store(value, sums, of)
        return context.get_dummy_value()

    n = types.int64
    return types.void(rows, N, all_gates, places, acc, shared, n, across, n, n), generate


def _weights_brought(N, groups, gates, weights, first, width, inside, here, shared, place, group):
    for e in range(group, CHUNK * N, groups):
        there = inside and e < here * N
        shared[place + e * WARP] = weights[first + e // N * width + gates[e % N] * UNITS] if there else np.float32(0)


@intrinsic_with(_weights_brought)
def bring_weights(typing_context, N, groups, gates, weights, first, width, inside, here, shared, place, group):
    """Copies what belongs to one unit of CHUNK rows of weights, N `gates` each, to shared[place + (k * N + n) * WARP].

    The unit's column of the first row begins at weights[first], the next row `width` further; 0 beyond `here` rows, and
    where the unit is not inside. A thread of each of the groups takes its share, the `group`-th of so many.
    """
    if not all(isinstance(of, types.IntegerLiteral) for of in (N, groups)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, gates, weights, first, width, inside, here, shared, place, group = arguments
        e, kinds, count, apart = Scalar(builder), signature.args, N.literal_value, groups.literal_value
        matrix, memory = data(context, builder, kinds[3], weights), data(context, builder, kinds[8], shared)
        least = builder.mul(here, I64(count))
        share = CHUNK * count // apart
        together = max(n for n in range(1, _TOGETHER + 1) if share % n == 0)
        with cgutils.for_range(builder, I64(share // together)) as loop:
            begin = builder.add(group, builder.mul(loop.index, I64(together * apart)))
            numbers, values = [builder.add(begin, I64(j * apart)) for j in range(together)], []
            for number in numbers:
                there = builder.and_(inside, builder.icmp_signed("<", number, least))
                n, gate = builder.urem(number, I64(count)), builder.extract_value(gates, 0)
                for other in range(1, count):
                    is_other = builder.icmp_signed("==", n, I64(other))
                    gate = builder.select(is_other, builder.extract_value(gates, other), gate)
                column = builder.add(
                    builder.mul(builder.udiv(number, I64(count)), width), builder.mul(gate, I64(UNITS))
                )
                value = e.load(matrix, builder.select(there, builder.add(first, column), I64(0)))
                values.append(builder.select(there, value, e.constant(0.0)))
            for number, value in zip(numbers, values, strict=True):
                e.store(value, memory, builder.add(place, builder.mul(number, I64(WARP))))
        return context.get_dummy_value()

    n = types.int64
    return types.void(N, groups, gates, weights, n, n, types.boolean, n, shared, n, n), generate


def _begun(rows, N, acc, gates, normalised, weights, begin, inside):
    for n in range(N):
        bias = weights[begin + gates[n] * UNITS] if inside and normalised[n] == 0 else np.float32(0)
        acc[n : rows * N : N] = bias


@intrinsic_with(_begun)
def begin_sums(typing_context, rows, N, acc, gates, normalised, weights, begin, inside):
    """Starts the sums of N `gates` from their biases, which lie at weights[begin]; from 0 where `normalised`, or not inside."""
    if not all(isinstance(of, types.IntegerLiteral) for of in (rows, N)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, acc, gates, normalised, weights, begin, inside = arguments
        e, kinds = Scalar(builder), signature.args
        sums, matrix = data(context, builder, kinds[2], acc), data(context, builder, kinds[5], weights)
        for n in range(N.literal_value):
            plain = builder.icmp_signed("==", builder.extract_value(normalised, n), I64(0))
            read = builder.and_(inside, plain)
            start = builder.block
            with builder.if_then(read):
                place = builder.add(begin, builder.mul(builder.extract_value(gates, n), I64(UNITS)))
                bias, found = e.load(matrix, place), builder.block
            value = builder.phi(FLOAT)
            value.add_incoming(e.constant(0.0), start)
            value.add_incoming(bias, found)
            for r in range(rows.literal_value):
                e.store(value, sums, I64(r * N.literal_value + n))
        return context.get_dummy_value()

    return types.void(rows, N, acc, gates, normalised, weights, types.int64, types.boolean), generate


def _kept(rows, N, acc, gates, shared, first, apart):
    for n in range(N):
        for r in range(rows):
            shared[first + gates[n] * apart + r] = NUMBERS.clamp(np.float32(acc[r * N + n]), LARGEST_SUM)


@intrinsic_with(_kept)
def keep_sums(typing_context, rows, N, acc, gates, shared, first, apart):
    """Writes the sums, within what their squares can take, to shared[first + gates[n] * apart + r]."""
    if not all(isinstance(of, types.IntegerLiteral) for of in (rows, N)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, acc, gates, shared, first, apart = arguments
        e, kinds = Scalar(builder), signature.args
        sums, memory = data(context, builder, kinds[2], acc), data(context, builder, kinds[4], shared)
        for n in range(N.literal_value):
            place = builder.add(first, builder.mul(builder.extract_value(gates, n), apart))
            for r in range(rows.literal_value):
                value = e.clamp(e.load(sums, I64(r * N.literal_value + n)), LARGEST_SUM)
                e.store(value, memory, builder.add(place, I64(r)))
        return context.get_dummy_value()

    return types.void(rows, N, acc, gates, shared, types.int64, types.int64), generate
