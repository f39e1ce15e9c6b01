"""The processor that kernels are compiled for, where STREAMLSTM_CPU names another than the one that runs them.

Numba reads its own two variables when it is first imported, so this is done before. The name of a processor alone leaves
AVX-512 on: the features are said, too. For trying what another host does; none is faster than the host's own.
"""

import os
import sys

import llvmlite.binding as llvm

from streamlstm.errors import ConfigError

_WITHOUT_AVX512 = ",".join(f"-avx512{part}" for part in ("f", "vl", "bw", "dq", "cd"))
_AVX2 = "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+popcnt,+sse4.2"
PROCESSORS = {
    "generic": ("x86-64", f"-avx,-avx2,-fma,{_WITHOUT_AVX512}"),
    "avx2": ("haswell", f"{_AVX2},{_WITHOUT_AVX512}"),
    "avx512": ("skylake-avx512", f"{_AVX2},{_WITHOUT_AVX512.replace('-', '+')}"),
    "neon": ("generic", "+neon,+fp-armv8"),
}
"""Numba's NUMBA_CPU_NAME and NUMBA_CPU_FEATURES of each choice."""
_NEEDED = {"generic": "sse2", "avx2": "avx2", "avx512": "avx512f", "neon": "neon"}


def possible() -> list[str]:
    """The choices that this machine can run."""
    has = llvm.get_host_cpu_features()
    return [name for name, feature in _NEEDED.items() if has.get(feature)]


def choose() -> None:
    """Sets Numba's variables as STREAMLSTM_CPU says; ConfigError where that cannot be."""
    wanted = os.environ.get("STREAMLSTM_CPU")
    if not wanted:
        return
    if wanted not in possible():
        raise ConfigError(f"environment STREAMLSTM_CPU: {wanted!r}; this machine can run {', '.join(possible())}")
    name, features = PROCESSORS[wanted]
    if "numba" in sys.modules and os.environ.get("NUMBA_CPU_NAME") != name:
        raise ConfigError(f"environment STREAMLSTM_CPU: {wanted!r} comes too late; import streamlstm before numba")
    os.environ["NUMBA_CPU_NAME"], os.environ["NUMBA_CPU_FEATURES"] = name, features
