"""The arithmetic of vector code on NumPy arrays, bit for bit: for interpreted runs, and to hold compiled ones against."""

from typing import Any

import numpy as np

from streamlstm.kernels.arithmetic import Arithmetic
from streamlstm.kernels.compiling import HAS_FMA, LANES

_ODD = np.int64(1)


def fused(a: Any, b: Any, c: Any) -> Any:
    """a * b + c of float32, rounded once.

    The product is exact in float64. The sum is rounded to odd there, which keeps on which side of a tie between two float32
    it lies (Boldo and Melquiond, "Emulation of FMA and Correctly Rounded Sums", 2008): 53 bits are enough for 24.
    """
    product, addend = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = np.asarray(product + addend)
    part = total - product
    error = (product - (total - part)) + (addend - part)  # Knuth's TwoSum: total + error is exact
    bits = total.view(np.int64)
    inexact = np.isfinite(total) & (error != 0) & (bits & _ODD == 0)
    step = np.where((error > 0) == (total > 0), 1, -1)  # away from zero, or towards it
    return np.where(inexact, bits + step, bits).view(np.float64).astype(np.float32)


def total(x: Any) -> Any:
    """The sum of a vector of float32: each with the one half a vector away, then likewise among those left."""
    width = len(x)
    while width > 1:
        width //= 2
        x = x + np.roll(x, -width)
    return x[0]


class Numbers(Arithmetic):
    """Operations on NumPy arrays of float32 and int32."""

    def constant(self, value: float) -> Any:
        """All lanes `value`, rounded to float32."""
        return np.float32(value)

    def integers(self, value: int) -> Any:
        """All lanes the int32 `value`."""
        return np.int32(value)

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""
        return a + b

    def sub(self, a: Any, b: Any) -> Any:
        """a - b."""
        return a - b

    def mul(self, a: Any, b: Any) -> Any:
        """a * b."""
        return a * b

    def div(self, a: Any, b: Any) -> Any:
        """a / b."""
        return a / b

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once where the host can (class `fma`), else twice (class `nofma`)."""
        return fused(a, b, c) if HAS_FMA else a * b + c

    def below(self, a: Any, b: Any) -> Any:
        """Where a < b; nowhere that either is NaN."""
        return a < b

    def choose(self, mask: Any, a: Any, b: Any) -> Any:
        """a in the lanes of the mask, else b."""
        return np.where(mask, a, b)

    def bits(self, x: Any) -> Any:
        """The int32 of the same bits."""
        return x.view(np.int32)

    def of_bits(self, bits: Any) -> Any:
        """The float32 of the same bits."""
        return bits.view(np.float32)

    def plus(self, a: Any, b: Any) -> Any:
        """a + b of int32, which wraps."""
        return a + b

    def both(self, a: Any, b: Any) -> Any:
        """Bits that are in a and in b."""
        return a & b

    def shift_left(self, a: Any, places: int) -> Any:
        """a 2^places of int32, which wraps."""
        return a << np.int32(places)

    def shift_right(self, a: Any, places: int) -> Any:
        """a 2^-places of int32, rounded down."""
        return a >> np.int32(places)

    def from_integers(self, a: Any) -> Any:
        """The float32 of an int32's value."""
        return a.astype(np.float32)


NUMBERS = Numbers()


def load(array: Any, at: int) -> Any:
    """16 values of a flat array from element `at` on; fewer where it ends, on which nothing else here works."""
    return array[at : at + LANES].copy()


def load_halves(array: Any, at: int) -> Any:
    """16 float16 as float32; `at` counts float16."""
    return array.view(np.float16)[at : at + LANES].astype(np.float32)


def store(array: Any, at: int, v: Any) -> None:
    """The reverse of `load`."""
    array[at : at + LANES] = v


def move(source: Any, i: int, target: Any, j: int) -> None:
    """target[j] = source[i]."""
    target[j] = source[i]
