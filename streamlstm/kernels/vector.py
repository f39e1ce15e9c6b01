"""Building blocks of vector code: LLVM IR on vectors of 16 or 8 float32, emitted by Numba intrinsics.

Plain loops cannot keep a tile of accumulators in registers; phi values can. Every output element is one chain of fused
multiply-adds over k that starts at its own start value, so its bits never depend on the rows and columns beside it.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils

from streamlstm.kernels.compiling import HAS_FMA, LANES

cgutils: Any = numba_cgutils
FLOAT = ir.FloatType()
I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)

# exp(r) = 1 + r + r^2 q(r) on [-ln 2 / 2, ln 2 / 2]: least maximal relative error 1.05e-7 for a q of degree 3, found by
# Lawson's reweighted least squares in float64.
EXP_Q = (0.4999923149472263, 0.16667114649745457, 0.04189015688344076, 0.00831252018649644)
LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = (
    0.693145751953125,
    1.428606765330187e-06,
)  # the first has 9 trailing zero bits: n * LN2_HIGH is exact
MAGIC = 12582912.0  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the sum


class Emitter:
    """One intrinsic's builder, with the few operations on vectors of `lanes` values that the kernels use."""

    def __init__(self, builder: Any, lanes: int = LANES) -> None:
        self.builder, self.lanes = builder, lanes
        self._vector, self._bits = ir.VectorType(FLOAT, lanes), ir.VectorType(I32, lanes)
        if HAS_FMA:
            kind = ir.FunctionType(self._vector, [self._vector] * 3)
            self._fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{lanes}f32")

    def constant(self, value: float) -> Any:
        """All lanes `value`, rounded to float32."""
        return ir.Constant(self._vector, [ir.Constant(FLOAT, value)] * self.lanes)

    def _integers(self, value: int) -> Any:
        return ir.Constant(self._bits, [value] * self.lanes)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once where the host can (class `fma`), else twice (class `nofma`)."""
        if HAS_FMA:
            return self.builder.call(self._fma, [a, b, c])
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
        return self.builder.shuffle_vector(scalar, undefined, self._integers(0))

    def sqrt(self, x: Any) -> Any:
        """Square roots."""
        return self._call("sqrt", x)

    def abs(self, x: Any) -> Any:
        """Absolute values."""
        return self._call("fabs", x)

    def round(self, x: Any) -> Any:
        """Nearest integers, halves to the even one."""
        return self._call("rint", x)

    def _call(self, name: str, x: Any) -> Any:
        kind = ir.FunctionType(self._vector, [self._vector])
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v{self.lanes}f32"), [x]
        )

    def clamp(self, x: Any, bound: float) -> Any:
        """x within +-bound; NaN stays NaN, since a comparison with it is false."""
        low, high = self.constant(-bound), self.constant(bound)
        x = self.builder.select(self.builder.fcmp_ordered("<", x, low), low, x)
        return self.builder.select(self.builder.fcmp_ordered(">", x, high), high, x)

    def exp(self, x: Any) -> Any:
        """exp(x) for |x| <= 87, within 2 ulp; NaN stays NaN.

        Cody and Waite's reduction x = n ln 2 + r, a polynomial for exp(r), and 2^n put together from bits. NaN passes
        through the polynomial and meets a finite or infinite 2^n in a product.
        """
        b = self.builder
        shifted = self.fma(x, self.constant(LOG2_E), self.constant(MAGIC))
        n = b.fsub(shifted, self.constant(MAGIC))
        r = self.fma(n, self.constant(-LN2_HIGH), x)
        r = self.fma(n, self.constant(-LN2_LOW), r)
        q = self.constant(EXP_Q[3])
        for coefficient in (EXP_Q[2], EXP_Q[1], EXP_Q[0], 1.0, 1.0):
            q = self.fma(q, r, self.constant(coefficient))
        exponent = b.shl(b.bitcast(shifted, self._bits), self._integers(23))
        scale = b.bitcast(b.add(exponent, self._integers(0x3F800000)), self._vector)
        return b.fmul(q, scale)

    def log1p(self, c: Any) -> Any:
        """ln(1 + c) of c >= 0, within 2e-7 absolute and 2 ulp of larger results.

        1 + c = m 2^n with m from sqrt(1/2) to sqrt 2, ln m = 2 atanh((m - 1) / (m + 1)) by its series.
        """
        b, one = self.builder, self.constant(1.0)
        root = 0x3F3504F3  # sqrt(1/2)
        bits = b.add(b.bitcast(b.fadd(one, c), self._bits), self._integers(0x3F800000 - root))
        n = b.sitofp(b.sub(b.ashr(bits, self._integers(23)), self._integers(127)), self._vector)
        mantissa = b.and_(bits, self._integers(0x007FFFFF))
        m = b.bitcast(b.add(mantissa, self._integers(root)), self._vector)
        s = b.fdiv(b.fsub(m, one), b.fadd(m, one))
        t = b.fmul(s, s)
        series = self.constant(1 / 9)
        for coefficient in (1 / 7, 1 / 5, 1 / 3, 1.0):
            series = b.fadd(self.constant(coefficient), b.fmul(t, series))
        return b.fadd(b.fmul(n, self.constant(0.6931471805599453)), b.fmul(b.fadd(s, s), series))

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
