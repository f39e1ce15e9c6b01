"""`streamlstm warm-up`."""

import time

from streamlstm.cli.terminal import output
from streamlstm.service.warmup import warm_up as compile_all


def warm_up() -> None:
    """Compile all kernels into the cache, once per version and host."""
    began = time.perf_counter()
    folder = compile_all()
    output.print(f"kernels are ready in {folder} ({time.perf_counter() - began:.1f} s)", markup=False, soft_wrap=True)
