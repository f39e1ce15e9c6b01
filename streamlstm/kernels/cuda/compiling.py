"""The one import of Numba's CUDA, and how kernels written for the CPU are compiled for a device.

A kernel's source is the CPU's. `Target` makes of a function its device form: the same code, in whose globals each compiled
function stands in its own device form, each vector of 16 lanes has become one value (a thread has no lanes), and what is
vector code on the CPU is a twin named in `TWINS`. Under the simulator (NUMBA_ENABLE_CUDASIM=1 with NUMBA_DISABLE_JIT=1) the
same functions run as plain Python.

Contraction of a product and a sum to a fused one cannot be switched off under numba-cuda, so a device's bits are not the
CPU's: they are a class of their own.
"""

from collections.abc import Callable
from dis import get_instructions
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from numba import cuda as numba_cuda
from numba.core.dispatcher import Dispatcher

from streamlstm.kernels.interpreting import INTERPRETED

cuda: Any = numba_cuda
_ERRORS = (
    "CCSupportError",
    "CudaAPIError",
    "CudaDriverError",
    "CudaSupportError",
    "LinkerError",
    "NvvmError",
    "NvvmSupportError",
)
DRIVER_ERRORS: tuple[type[Exception], ...] = tuple(
    found
    for module in (cuda.cudadrv.driver, cuda.cudadrv.error, cuda.cudadrv.nvvm)
    for name in _ERRORS
    if isinstance(found := getattr(module, name, None), type) and issubclass(found, Exception)
)
"""What driver and compiler raise; the simulator has fewer of them."""
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
        if isinstance(value, (Dispatcher, FunctionType)) or callable(value):
            if value in self._twins:
                return self._twins[value]
            ours = isinstance(value, FunctionType) and value.__module__.startswith(_OURS)
            return self(value) if isinstance(value, Dispatcher) or ours else value
        return value


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


def smaller(a, b):
    """The smaller of two by Python's rule, as on the CPU: a where either is NaN; CUDA's own would give the other."""
    return b if b < a else a


def larger(a, b):
    """The larger of two, likewise."""
    return b if b > a else a


if not INTERPRETED:
    smaller, larger = device(smaller, inline=True), device(larger, inline=True)
