"""What stands in for Numba in an interpreted run (NUMBA_DISABLE_JIT=1), where a kernel is the function that was written.

- A bare float is float64 under the JIT and widens the float32 that it meets; NumPy lets it give way. So in the code of a
  kernel, and among the globals that stand above it, `widen` makes np.float64 of every float.
- The smaller or larger of a float32 and a float64 is a float64 under the JIT; `widen` gives a kernel's module such a
  `min` and `max`.
- A C function is known by a number instead of an address.
- Kernels divide by zero and let integers wrap: NumPy is told, once and for the whole process, not to warn of it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import config as numba_config

_config: Any = numba_config
INTERPRETED = bool(_config.DISABLE_JIT)
if INTERPRETED:
    np.seterr(all="ignore")

_functions: list[Callable[..., Any]] = []


def widen(function: Any) -> None:
    """Makes the types of a function, and of what its module has defined so far, those of the JIT."""
    code, names = function.__code__, function.__globals__
    function.__code__ = code.replace(co_consts=_widened(code.co_consts))
    names |= {name: _widened(value) for name, value in names.items()} | {"min": _widest(min), "max": _widest(max)}


def _widened(value: Any) -> Any:
    if type(value) is float:
        return np.float64(value)
    return tuple(_widened(item) for item in value) if type(value) is tuple else value


def _widest(choose: Callable[..., Any]) -> Callable[..., Any]:
    def chosen(*values: Any) -> Any:
        value = choose(*values)
        if len({type(value) for value in values}) == 1:
            return value
        return np.result_type(*(np.asarray(value).dtype for value in values)).type(value)

    return chosen


def number_of(function: Callable[..., Any]) -> int:
    """A new number for a function, which `function_at` finds it by."""
    _functions.append(function)
    return len(_functions) - 1


def function_at(number: int) -> Callable[..., Any]:
    """The function of that number."""
    return _functions[number]
