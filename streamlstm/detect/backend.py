"""Which processor scores: the CPU, or a GPU where one is wanted, there, and able to."""

import importlib.util

from streamlstm.config import Config
from streamlstm.errors import DeviceError, UsageError

_INSTALL = "install streamlstm[cuda]"


def on_device(config: Config, *, online: bool) -> tuple[bool, str]:
    """Whether a GPU scores, and what is to be said of it ("" for nothing).

    `runtime.backend: auto` takes the CPU where there is no GPU, or where the detector does what only the CPU can;
    `cuda` is then an error: UsageError for what only the CPU can, DeviceError where the GPU cannot be used.
    """
    backend = config.runtime.backend
    if backend == "cpu":
        return False, ""
    hindrance = _only_on_cpu(config, online=online)
    missing = hindrance or _missing()
    if not missing:
        return True, ""
    if backend == "auto":
        return False, f"runtime.backend: auto takes the CPU: {missing}" if hindrance else ""
    remedy = "set runtime.backend: cpu or auto"
    if hindrance:
        raise UsageError(f"runtime.backend: cuda: {hindrance}; {remedy}")
    raise DeviceError(f"runtime.backend: cuda: {missing}; or {remedy}")


def _only_on_cpu(config: Config, *, online: bool) -> str:
    if online:
        return "weights that learn online learn on the CPU"
    if config.runtime.max_streams is not None:
        return "runtime.max_streams moves rows to disk, which a GPU does not"
    return ""


def _missing() -> str:
    """Why there is no GPU, "" where there is one."""
    if importlib.util.find_spec("numba_cuda") is None:
        return f"the package numba-cuda is not there; {_INSTALL}"
    from streamlstm.kernels.cuda.memory import why_unusable  # asks for a driver, and takes half a second

    return why_unusable()
