"""What stands in for Numba in an interpreted run (NUMBA_DISABLE_JIT=1), where a kernel is the function that was written.

- A bare float is float64 under the JIT and widens the float32 that it meets; NumPy lets it give way. So in the code of a
  kernel, and among the globals that stand above it, `widen` makes np.float64 of every float.
- A C function is known by a number instead of an address.
- Kernels divide by zero and let integers wrap: NumPy is told, once and for the whole process, not to warn of it.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
from numba.core import config as numba_config

_config: Any = numba_config
INTERPRETED = bool(_config.DISABLE_JIT)
if INTERPRETED:
    np.seterr(all="ignore")

_functions: list[Callable[..., Any]] = []


def widen(function: FunctionType) -> None:
    """Changes the floats of a function's code, and those defined in its module so far, to np.float64."""
    code = function.__code__
    function.__code__ = code.replace(co_consts=_widened(code.co_consts))
    for name, value in function.__globals__.items():
        function.__globals__[name] = _widened(value)  # no name is added


def _widened(value: Any) -> Any:
    if type(value) is float:
        return np.float64(value)
    return tuple(_widened(item) for item in value) if type(value) is tuple else value


def number_of(function: Callable[..., Any]) -> int:
    """A new number for a function, which `function_at` finds it by."""
    _functions.append(function)
    return len(_functions) - 1


def function_at(number: int) -> Callable[..., Any]:
    """The function of that number."""
    return _functions[number]
