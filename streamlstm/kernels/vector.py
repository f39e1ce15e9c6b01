"""Building blocks of vector code: LLVM IR on vectors of 16 or 8 float32, emitted by Numba intrinsics.

Plain loops cannot keep a tile of accumulators in registers; phi values can. Every output element is one chain of fused
multiply-adds over k that starts at its own start value, so its bits never depend on the rows and columns beside it.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils

from streamlstm.kernels.arithmetic import Arithmetic
from streamlstm.kernels.compiling import HAS_FLOAT16, HAS_FMA, LANES

cgutils: Any = numba_cgutils
FLOAT = ir.FloatType()
I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)


class Emitter(Arithmetic):
    """One intrinsic's builder, with the few operations on vectors of `lanes` values that the kernels use."""

    converts_halves = HAS_FLOAT16

    def __init__(self, builder: Any, lanes: int = LANES) -> None:
        self.builder, self.lanes = builder, lanes
        self._vector, self._bits = self._of(FLOAT), self._of(I32)

    def _of(self, kind: Any) -> Any:
        """The type of so many values of a kind."""
        return ir.VectorType(kind, self.lanes)

    def constant(self, value: float) -> Any:
        """All lanes `value`, rounded to float32."""
        return ir.Constant(self._vector, [ir.Constant(FLOAT, value)] * self.lanes)

    def integers(self, value: int) -> Any:
        """All lanes the int32 `value`."""
        return ir.Constant(self._bits, [value] * self.lanes)

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""
        return self.builder.fadd(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        """a - b."""
        return self.builder.fsub(a, b)

    def mul(self, a: Any, b: Any) -> Any:
        """a * b."""
        return self.builder.fmul(a, b)

    def div(self, a: Any, b: Any) -> Any:
        """a / b."""
        return self.builder.fdiv(a, b)

    def below(self, a: Any, b: Any) -> Any:
        """Where a < b; nowhere that either is NaN."""
        return self.builder.fcmp_ordered("<", a, b)

    def choose(self, mask: Any, a: Any, b: Any) -> Any:
        """a in the lanes of the mask, else b."""
        return self.builder.select(mask, a, b)

    def bits(self, x: Any) -> Any:
        """The int32 of the same bits."""
        return self.builder.bitcast(x, self._bits)

    def of_bits(self, bits: Any) -> Any:
        """The float32 of the same bits."""
        return self.builder.bitcast(bits, self._vector)

    def plus(self, a: Any, b: Any) -> Any:
        """a + b of int32, which wraps."""
        return self.builder.add(a, b)

    def both(self, a: Any, b: Any) -> Any:
        """Bits that are in a and in b."""
        return self.builder.and_(a, b)

    def shift_left(self, a: Any, places: int) -> Any:
        """a 2^places of int32, which wraps."""
        return self.builder.shl(a, self.integers(places))

    def shift_right(self, a: Any, places: int) -> Any:
        """a 2^-places of int32, rounded down."""
        return self.builder.ashr(a, self.integers(places))

    def from_integers(self, a: Any) -> Any:
        """The float32 of an int32's value."""
        return self.builder.sitofp(a, self._vector)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once where the host can (class `fma`), else twice (class `nofma`)."""
        if HAS_FMA:
            return self._call("fma", a, b, c)
        return self.builder.fadd(self.builder.fmul(a, b), c)

    def load(self, base: Any, offset: Any) -> Any:
        """The floats at base + offset; no alignment beyond that of a float is assumed."""
        value = self.builder.load(self._at(base, offset))
        value.align = 4
        return value

    def store(self, value: Any, base: Any, offset: Any) -> None:
        """Writes floats at base + offset."""
        self.builder.store(value, self._at(base, offset)).align = 4

    def _at(self, base: Any, offset: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(base, [offset]), self._vector.as_pointer())

    def broadcast(self, base: Any, offset: Any) -> Any:
        """The float at base + offset in all lanes."""
        return self.splat(self.builder.load(self.builder.gep(base, [offset])))

    def splat(self, value: Any) -> Any:
        """The float `value` in all lanes."""
        undefined = ir.Constant(self._vector, ir.Undefined)
        scalar = self.builder.insert_element(undefined, value, I32(0))
        return self.builder.shuffle_vector(scalar, undefined, self.integers(0))

    def sqrt(self, x: Any) -> Any:
        """Square roots."""
        return self._call("sqrt", x)

    def abs(self, x: Any) -> Any:
        """Absolute values."""
        return self._call("fabs", x)

    def round(self, x: Any) -> Any:
        """Nearest integers, halves to the even one."""
        return self._call("rint", x)

    def _call(self, name: str, *values: Any) -> Any:
        kind = ir.FunctionType(self._vector, [self._vector] * len(values))
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v{self.lanes}f32"), values
        )

    def first_lanes(self, count: Any) -> Any:
        """The mask of the first `count` lanes, an i64."""
        numbers = ir.Constant(self._bits, list(range(self.lanes)))
        many = self.builder.insert_element(
            ir.Constant(self._bits, ir.Undefined), self.builder.trunc(count, I32), I32(0)
        )
        many = self.builder.shuffle_vector(many, ir.Constant(self._bits, ir.Undefined), self.integers(0))
        return self.builder.icmp_signed("<", numbers, many)

    def total(self, x: Any) -> Any:
        """The sum of all lanes as a float: each with the one half a vector away, then likewise among those left."""
        width = self.lanes
        while width > 1:
            width //= 2
            lanes = ir.Constant(self._bits, [(n + width) % self.lanes for n in range(self.lanes)])
            x = self.add(x, self.builder.shuffle_vector(x, ir.Constant(self._vector, ir.Undefined), lanes))
        return self.builder.extract_element(x, I32(0))

    def load_half(self, base: Any, offset: Any) -> Any:
        """Floats of the float16 at base + offset, counted in float16."""
        value = self.builder.load(self._at_half(base, offset))
        value.align = 2
        return self.builder.fpext(value, self._vector) if self.converts_halves else self._widened(value)

    def store_half(self, value: Any, base: Any, offset: Any) -> None:
        """Writes floats as the nearest float16 at base + offset, counted in float16."""
        kind = self._of(ir.HalfType())
        halves = self.builder.fptrunc(value, kind) if self.converts_halves else self._narrowed(value, kind)
        self.builder.store(halves, self._at_half(base, offset)).align = 2

    def _widened(self, halves: Any) -> Any:
        """float32 of float16 by their bits: its 5 bits of exponent count from 15, ours from 127."""
        b = self.builder
        bits = b.zext(b.bitcast(halves, self._of(ir.IntType(16))), self._bits)
        sign = self.shift_left(self.both(bits, self.integers(0x8000)), 16)
        size = self.shift_left(self.both(bits, self.integers(0x7FFF)), 13)
        scaled = self.bits(self.mul(self.of_bits(size), self.constant(2.0**112)))  # also of what is denormal
        endless = b.icmp_signed(">=", size, self.integers(0x0F800000))
        finite_or_not = b.select(endless, b.or_(size, self.integers(0x7F800000)), scaled)
        return self.of_bits(b.or_(finite_or_not, sign))

    def _narrowed(self, value: Any, kind: Any) -> Any:
        """The nearest float16, of two the even one, by bits; what is too large is infinite."""
        b, bits = self.builder, self.bits(value)
        size = self.both(bits, self.integers(0x7FFFFFFF))
        sign = self.shift_right(self.both(bits, self.integers(-0x80000000)), 16)
        odd = self.both(self.shift_right(size, 13), self.integers(1))
        normal = self.shift_right(self.plus(self.plus(size, odd), self.integers(0xFFF - (112 << 23))), 13)
        half = self.constant(0.5)  # its last bit is worth as much as that of a denormal float16
        small = b.sub(self.bits(self.add(self.of_bits(size), half)), self.bits(half))
        out = b.select(b.icmp_signed("<", size, self.integers(0x38800000)), small, normal)
        out = b.select(b.icmp_signed(">=", size, self.integers(0x47800000)), self.integers(0x7C00), out)
        out = b.select(b.icmp_signed(">", size, self.integers(0x7F800000)), self.integers(0x7E00), out)
        whole = b.trunc(b.or_(out, sign), self._of(ir.IntType(16)))
        return b.bitcast(whole, kind)

    def _at_half(self, base: Any, offset: Any) -> Any:
        b = self.builder
        first = b.gep(b.bitcast(base, ir.HalfType().as_pointer()), [offset])
        return b.bitcast(first, self._of(ir.HalfType()).as_pointer())

    def prefetch(self, base: Any, size: Any) -> None:
        """Asks for the cache lines of `size` bytes at base, to be written."""
        b, line = self.builder, 64
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        fetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        start = b.bitcast(base, byte)
        with cgutils.for_range(b, b.udiv(b.add(size, I64(line - 1)), I64(line))) as loop:
            b.call(fetch, [b.gep(start, [b.mul(loop.index, I64(line))]), I32(1), I32(3), I32(1)])

    def accumulate(self, start: list[list[Any]], count: Any, weights: Any, rows: Any) -> list[list[Any]]:
        """start[r][v] + sum over k < count of rows(r, k) * weights(v, k), a chain of fma per element, k innermost.

        `weights(v, k)` and `rows(r, k)` emit the vectors of one k; `count` is an i64 of at least 1.
        """
        b = self.builder
        entry, loop, done = b.block, b.append_basic_block("k"), b.append_basic_block("k_done")
        b.branch(loop)
        b.position_at_end(loop)
        k = b.phi(I64)
        k.add_incoming(I64(0), entry)
        sums = [[b.phi(self._vector) for _ in row] for row in start]
        columns = [weights(v, k) for v in range(len(start[0]))]
        totals = []
        for r, row in enumerate(sums):
            z = rows(r, k)
            totals.append([self.fma(z, column, total) for column, total in zip(columns, row, strict=True)])
        following = b.add(k, I64(1))
        k.add_incoming(following, b.block)
        for r, row in enumerate(sums):
            for v, total in enumerate(row):
                total.add_incoming(start[r][v], entry)
                total.add_incoming(totals[r][v], b.block)
        b.cbranch(b.icmp_signed("<", following, count), loop, done)
        b.position_at_end(done)
        return totals


def data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Address of an array argument's first element, or the pointer that was handed over."""
    if isinstance(kind, types.CPointer):
        return array
    return context.make_array(kind)(context, builder, array).data
