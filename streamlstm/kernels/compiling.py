"""Every compile flag, the cache folder and the facts of the host, in one place; all kernels are compiled through `jit`.

- `error_model="numpy"`: without it each division carries a zero check and no loop with a division is vectorised.
- no `fastmath`: it assumes away NaN, and lets a row's bits depend on its neighbours.
- `nogil`: threads of the host program (a consumer's heartbeat) go on while a batch is scored.
- no runtime (`_nrt=False`): kernels allocate nothing, and without reference counts a view of an array is free. With them
  a record took 1009 ns instead of 300 (measured on a Xeon at 2.8 GHz, 2026-11-21; H=32, D=1).
- `cache`: kernels close over integers only and call module globals, so their cache is hit. Numba's index does not
  notice a change in a callee of another file, hence the folder is named by a hash of all kernel sources and switches.
"""

import fcntl
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core import config as numba_config
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from streamlstm.kernels.interpreting import INTERPRETED, number_of, widen

_numba: Any = numba
config: Any = numba_config  # its settings are made at run time
LANES = 16
"""float32 lanes of a vector in our IR; LLVM splits it where the host's vectors are shorter, with equal bits."""


def padded(n: int) -> int:
    """n rounded up to whole vectors."""
    return -(-n // LANES) * LANES


def _host_features() -> dict[str, bool]:
    if config.CPU_FEATURES is not None:
        return {name[1:]: name[0] == "+" for name in config.CPU_FEATURES.split(",") if name}
    if config.CPU_NAME == "generic":
        return {}
    return dict(llvm.get_host_cpu_features())


_FEATURES = _host_features()
HAS_FMA = bool(_FEATURES.get("fma") or _FEATURES.get("neon"))
"""With hardware fused multiply-add all hosts agree bit for bit (class `fma`); a call to libm's fma would be ruinous."""
ARITHMETIC = "fma" if HAS_FMA else "nofma"
HAS_FLOAT16 = bool(_FEATURES.get("f16c") or _FEATURES.get("neon"))
"""Whether the host converts float16 itself; else LLVM would call a function that Numba does not bring."""
HAS_AVX512 = bool(_FEATURES.get("avx512f"))


def _cache_root() -> Path:
    named = os.environ.get("STREAMLSTM_CACHE_DIR")
    if named:
        return Path(named)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamlstm"
    try:
        root.mkdir(parents=True, exist_ok=True)
        writable = os.access(root, os.W_OK)
    except OSError:
        writable = False
    return root if writable else Path(tempfile.gettempdir()) / f"streamlstm-{os.getuid()}"


def _code_hash() -> str:
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted(here.rglob("*.py")):
        if path.parent.name != "cuda":  # they are compiled for another processor
            digest.update(path.read_bytes())
    switches = (config.BOUNDSCHECK, config.OPT, config.CPU_NAME, config.CPU_FEATURES, config.DEBUGINFO_DEFAULT)
    digest.update(repr((numba.__version__, llvm.get_host_cpu_name(), sorted(_FEATURES.items()), switches)).encode())
    return digest.hexdigest()[:16]


CACHE_DIR = _cache_root() / _code_hash()
_lock = threading.Lock()


def jit(function: Callable[..., Any] | None = None, *, parallel: bool = False, inline: bool = False) -> Any:
    """The function compiled for the CPU on its first call, or loaded from `CACHE_DIR`.

    `inline` is for functions inside a hot loop: LLVM must see through a call to vectorise it, and a call with a dozen
    arrays copies a kilobyte of arguments (per record 350 instead of 495 ns, Xeon at 2.8 GHz, 2026-11-21; H=32, D=1).
    """
    if function is None:
        return lambda f: jit(f, parallel=parallel, inline=inline)
    if INTERPRETED:
        widen(function)
        return function
    with _our_cache():
        made = _numba.njit(
            function,
            error_model="numpy",
            nogil=True,
            cache=True,
            parallel=parallel,
            _nrt=parallel,  # only the scheduler of prange needs the runtime
            forceinline=inline,
        )
        file = made._cache._cache_file
        file.save = partial(_save, file.save)
        return made


def _save(save: Callable[..., None], *arguments: Any) -> None:
    """Two processes that add to one index at once would otherwise give one file to two compiled functions."""
    with _alone:
        save(*arguments)


def threads_are_safe() -> bool:
    """Whether two threads of a program may call parallel kernels, once the first such call has started Numba's threads.

    Its own layer, `workqueue`, ends the process where OpenMP and TBB wait.
    """
    return bool(INTERPRETED or _numba.threading_layer() != "workqueue")


def intrinsic_with(twin: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Makes an intrinsic of a function that types and emits it; interpreted runs call `twin` in its place."""
    return lambda function: twin if INTERPRETED else intrinsic(function)


class CFunction:
    """A function compiled, or loaded, when its `address` is first asked for: kernels call it without knowing which it is."""

    def __init__(self, function: Callable[..., Any], signature: Any) -> None:
        if INTERPRETED:
            widen(function)
        self.function, self._signature = function, signature

    @cached_property
    def address(self) -> int:
        """Where the machine code lies in this process; interpreted, the function's number."""
        return number_of(self.function) if INTERPRETED else int(self.compiled.address)

    @cached_property
    def compiled(self) -> Any:
        """Numba's object, which keeps the code alive."""
        # Who waits finds it compiled. Numba holds its own lock wherever it saves, so that comes first.
        with _our_cache(), global_compiler_lock, _alone:
            return _numba.cfunc(self._signature, cache=True, error_model="numpy", _nrt=False)(self.function)


def c_function(signature: Any) -> Callable[[Callable[..., Any]], CFunction]:
    """Makes a `CFunction` of a Numba signature; it raises nothing."""
    return lambda function: CFunction(function, signature)


class _Alone:
    """No other process or thread writes to the cache folder meanwhile; to be entered again by who is inside.

    A function that is compiled here saves those that it calls.
    """

    def __init__(self) -> None:
        self._lock, self._depth = threading.RLock(), 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._file = (CACHE_DIR / "lock").open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *raised: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._file.close()
        self._lock.release()


_alone = _Alone()


@contextmanager
def _our_cache() -> Iterator[None]:
    """The cache folder is chosen while decorating; a program that imports us keeps its own setting."""
    with _lock:
        before, config.CACHE_DIR = config.CACHE_DIR, str(CACHE_DIR)
        try:
            CACHE_DIR.mkdir(parents=True, exist_ok=True)
            yield
        finally:
            config.CACHE_DIR = before
