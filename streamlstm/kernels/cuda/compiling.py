"""The one import of Numba's CUDA, and how kernels written for the CPU are compiled for a device.

A kernel's source is the CPU's. `Target` makes of a function its device form: the same code, in whose globals each compiled
function stands in its own device form, each vector of 16 lanes has become one value (a thread has no lanes), and what is
vector code on the CPU is a twin named in `TWINS`. Under the simulator (NUMBA_ENABLE_CUDASIM=1 with NUMBA_DISABLE_JIT=1) the
same functions run as plain Python.

numba-cuda lets its compiler fuse products and sums where it likes, and has no switch for that, so a device's bits are not
the CPU's: they are a class of their own.
"""

from collections.abc import Callable
from dis import get_instructions
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from numba import cuda as numba_cuda
from numba.core import types
from numba.core.dispatcher import Dispatcher

from streamlstm.kernels.interpreting import INTERPRETED

cuda: Any = numba_cuda
_OURS = "streamlstm.kernels"


class Target:
    """Device forms of CPU functions; `twins` are objects that stand for others, `constants` values of globals by name."""

    def __init__(self, twins: dict[Any, Any], constants: dict[str, Any]) -> None:
        self._twins, self._constants = twins, constants
        self._made: dict[Any, Any] = {}

    def __call__(self, function: Any) -> Any:
        """The device function of a CPU function, compiled or not."""
        plain = getattr(function, "py_func", function)
        if plain not in self._made:
            inline = not INTERPRETED and bool(getattr(function, "targetoptions", {}).get("forceinline"))
            self._made[plain] = device(self.rebuilt(plain), inline=inline)
        return self._made[plain]

    def rebuilt(self, function: Any) -> Any:
        """The same code among globals of the device."""
        code, around = function.__code__, function.__globals__
        read = {step.argval for step in get_instructions(code) if step.opname == "LOAD_GLOBAL"}
        names = around | {name: self._twin(around[name]) for name in read & around.keys()}
        if not INTERPRETED:
            names |= {"min": smaller, "max": larger}
        names |= self._constants
        made = FunctionType(code, names, function.__name__, function.__defaults__, function.__closure__)
        made.__doc__, made.__module__ = function.__doc__, function.__module__
        return made

    def _twin(self, value: Any) -> Any:
        if isinstance(value, ModuleType):
            return _Forms(self, value) if value is np or value.__name__.startswith(_OURS) else value
        if not callable(value):
            return value
        if value in self._twins:
            return self._twins[value]
        ours = isinstance(value, FunctionType) and value.__module__.startswith(_OURS)
        return self(value) if isinstance(value, Dispatcher) or ours else value


class _Forms(ModuleType):
    """A module whose members are device forms, made when they are asked for."""

    def __init__(self, target: Target, module: ModuleType) -> None:
        super().__init__(module.__name__)
        self._target, self._module = target, module

    def __getattr__(self, name: str) -> Any:
        return self._target._twin(getattr(self._module, name))


def device(function: Callable[..., Any], *, inline: bool = False) -> Any:
    """A device function; under the simulator the function itself."""
    return function if INTERPRETED else cuda.jit(function, device=True, forceinline=inline)


class Kernel:
    """A kernel of so many int64, compiled now: of addresses and numbers alone.

    It is launched past Numba's own way, which takes twice as long (13 instead of 6 us), and warns of every small grid: one
    event is a grid of one block, and meant so. Not optimised at link time: what runs is what `tests/ptx.py` measures.
    """

    def __init__(self, function: Callable[..., Any], integers: int) -> None:
        if INTERPRETED:
            self._simulated = cuda.jit(function)
        else:
            dispatcher = cuda.jit(signature(integers), lto=False)(function)
            (self._compiled,) = dispatcher.overloads.values()

    def launch(self, blocks: int, threads: tuple[int, int], stream: Any, shared: int, *integers: int) -> None:
        """Runs it in a stream of the device, with so many bytes of shared memory; does not wait."""
        if INTERPRETED:
            self._simulated[blocks, threads, stream, shared](*integers)
        else:
            core = cuda.cudadrv.driver._to_core_stream(stream)
            self._compiled.launch(integers, (blocks, 1, 1), (*threads, 1), core, shared)

    @property
    def local_bytes(self) -> int:
        """Bytes of slow memory that a thread needs because its registers are too few."""
        return int(self._compiled.local_mem_per_thread)


@cache
def compiled(function: Callable[..., Any], integers: int) -> Kernel:
    """A kernel, compiled once for all detectors of the process."""
    return Kernel(function, integers)


def signature(integers: int) -> Any:
    """Numba's type of a kernel of so many int64."""
    return types.void(*[types.int64] * integers)


def raised_by_driver(error: Exception) -> bool:
    """Whether driver, compiler or linker of the device raised it; their classes have no common one."""
    return type(error).__module__.startswith(("numba.cuda.", "cuda."))


def smaller(a, b):
    """The smaller of two by Python's rule, as on the CPU: a where either is NaN; CUDA's own would give the other."""
    return b if b < a else a


def larger(a, b):
    """The larger of two, likewise."""
    return b if b > a else a


if not INTERPRETED:
    smaller, larger = device(smaller, inline=True), device(larger, inline=True)
