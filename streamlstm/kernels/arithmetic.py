"""Elementary functions out of few operations on float32, said once for vector code and for plain Python.

A subclass brings the operations: `vector.Emitter` emits them as LLVM IR, `interpreted.Numbers` does them on NumPy arrays.
"""

from abc import ABC, abstractmethod
from typing import Any

# exp(r) = 1 + r + r^2 q(r) on [-ln 2 / 2, ln 2 / 2]: least maximal relative error 1.05e-7 for a q of degree 3, found by
# Lawson's reweighted least squares in float64.
EXP_Q = (0.4999923149472263, 0.16667114649745457, 0.04189015688344076, 0.00831252018649644)
LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = (
    0.693145751953125,
    1.428606765330187e-06,
)  # the first has 9 trailing zero bits: n * LN2_HIGH is exact
MAGIC = 12582912.0  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the sum


class Arithmetic(ABC):
    """Operations on vectors of float32, and on int32 of the same width, and what is made of them."""

    @abstractmethod
    def constant(self, value: float) -> Any:
        """All lanes `value`, rounded to float32."""

    @abstractmethod
    def integers(self, value: int) -> Any:
        """All lanes the int32 `value`."""

    @abstractmethod
    def add(self, a: Any, b: Any) -> Any:
        """a + b."""

    @abstractmethod
    def sub(self, a: Any, b: Any) -> Any:
        """a - b."""

    @abstractmethod
    def mul(self, a: Any, b: Any) -> Any:
        """a * b."""

    @abstractmethod
    def div(self, a: Any, b: Any) -> Any:
        """a / b."""

    @abstractmethod
    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once where the host can (class `fma`), else twice (class `nofma`)."""

    @abstractmethod
    def below(self, a: Any, b: Any) -> Any:
        """Where a < b; nowhere that either is NaN."""

    @abstractmethod
    def choose(self, mask: Any, a: Any, b: Any) -> Any:
        """a in the lanes of the mask, else b."""

    @abstractmethod
    def bits(self, x: Any) -> Any:
        """The int32 of the same bits."""

    @abstractmethod
    def of_bits(self, bits: Any) -> Any:
        """The float32 of the same bits."""

    @abstractmethod
    def plus(self, a: Any, b: Any) -> Any:
        """a + b of int32, which wraps."""

    @abstractmethod
    def both(self, a: Any, b: Any) -> Any:
        """Bits that are in a and in b."""

    @abstractmethod
    def shift_left(self, a: Any, places: int) -> Any:
        """a 2^places of int32, which wraps."""

    @abstractmethod
    def shift_right(self, a: Any, places: int) -> Any:
        """a 2^-places of int32, rounded down."""

    @abstractmethod
    def from_integers(self, a: Any) -> Any:
        """The float32 of an int32's value."""

    def clamp(self, x: Any, bound: float) -> Any:
        """x within +-bound; NaN stays NaN, since a comparison with it is false."""
        low, high = self.constant(-bound), self.constant(bound)
        x = self.choose(self.below(x, low), low, x)
        return self.choose(self.below(high, x), high, x)

    def exp(self, x: Any) -> Any:
        """exp(x) for |x| <= 87, within 2 ulp; NaN stays NaN.

        Cody and Waite's reduction x = n ln 2 + r, a polynomial for exp(r), and 2^n put together from bits. NaN passes
        through the polynomial and meets a finite or infinite 2^n in a product.
        """
        shifted = self.fma(x, self.constant(LOG2_E), self.constant(MAGIC))
        n = self.sub(shifted, self.constant(MAGIC))
        r = self.fma(n, self.constant(-LN2_HIGH), x)
        r = self.fma(n, self.constant(-LN2_LOW), r)
        q = self.constant(EXP_Q[3])
        for coefficient in (EXP_Q[2], EXP_Q[1], EXP_Q[0], 1.0, 1.0):
            q = self.fma(q, r, self.constant(coefficient))
        exponent = self.shift_left(self.bits(shifted), 23)
        return self.mul(q, self.of_bits(self.plus(exponent, self.integers(0x3F800000))))

    def log1p(self, c: Any) -> Any:
        """ln(1 + c) of c >= 0, within 2e-7 absolute and 2 ulp of larger results.

        1 + c = m 2^n with m from sqrt(1/2) to sqrt 2, ln m = 2 atanh((m - 1) / (m + 1)) by its series.
        """
        one = self.constant(1.0)
        root = 0x3F3504F3  # sqrt(1/2)
        bits = self.plus(self.bits(self.add(one, c)), self.integers(0x3F800000 - root))
        n = self.from_integers(self.plus(self.shift_right(bits, 23), self.integers(-127)))
        mantissa = self.both(bits, self.integers(0x007FFFFF))
        m = self.of_bits(self.plus(mantissa, self.integers(root)))
        s = self.div(self.sub(m, one), self.add(m, one))
        t = self.mul(s, s)
        series = self.constant(1 / 9)
        for coefficient in (1 / 7, 1 / 5, 1 / 3, 1.0):
            series = self.add(self.constant(coefficient), self.mul(t, series))
        return self.add(self.mul(n, self.constant(0.6931471805599453)), self.mul(self.add(s, s), series))
