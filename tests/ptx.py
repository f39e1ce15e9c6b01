"""Builds the device's kernels all the way to machine code, without a device: PTX by Numba, then NVIDIA's `ptxas`.

python tests/ptx.py GROUP...  prints as JSON what each kernel of the groups takes on each architecture.
python tests/ptx.py --write   writes the table that is checked in, `tests/ptx.json`.
"""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba.cuda.dispatcher

from streamlstm.kernels.cells import CELLS
from streamlstm.kernels.cells.program import PROGRAMS
from streamlstm.kernels.cuda.compiling import cuda, signature
from streamlstm.kernels.cuda.memory import move
from streamlstm.kernels.cuda.records import judge_kernel, predict, prepare
from streamlstm.kernels.cuda.step import SHARED_BYTES, TILES, shared_floats, step_kernel, tile_for
from streamlstm.kernels.layout import KINDS

__all__ = ["SHARED_BYTES", "TABLE", "ptxas", "shared"]
ARCHITECTURES = (7, 5), (8, 0), (9, 0), (10, 0)
TABLE = Path(__file__).with_name("ptx.json")
_FOUND = {
    "registers": re.compile(r"Used (\d+) registers"),
    "stack": re.compile(r"(\d+) bytes stack frame"),
    "spilled": re.compile(r"(\d+) bytes spill stores"),
}


def program(cell: str) -> int:
    """The number of a cell's program."""
    return PROGRAMS.index(CELLS[cell].program)


KERNELS: dict[str, tuple[Any, int, bool]] = {
    # name: the kernel, its integers, and whether each architecture has PTX of its own or takes that of the oldest
    "record/prepare": (prepare, 3, True),
    "record/predict": (predict, 3, True),
    "record/move": (move, 6, True),
    "record/judge contrast": (judge_kernel(KINDS["contrast"]), 3, True),
    "step/lstm": (step_kernel(program("lstm"), 0, 0, *TILES[0]), 6, True),
    **{f"tile/lstm {tile.rows} x {tile.groups}": (step_kernel(program("lstm"), 0, 0, *tile), 6, False)
       for tile in TILES[1:]},
    "tile/lstm float16": (step_kernel(program("lstm"), 0, 1, *TILES[0]), 6, False),
    **{f"cell/{name}": (step_kernel(program(name), 0, 0, *TILES[0]), 6, False) for name in CELLS if name != "lstm"},
    **{f"cell/{name}, layer_norm": (step_kernel(program(name), 1, 0, *TILES[0]), 6, False) for name in CELLS},
    **{f"judge/{kind}": (judge_kernel(number), 3, False) for kind, number in KINDS.items() if kind != "contrast"},
}  # fmt: skip
GROUPS = ("record", "step", "tile", "cell", "judge")


def ptxas() -> str | None:
    """The assembler of the package nvidia-cuda-nvcc, or of an installed toolkit."""
    found = sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("*/bin/ptxas"))
    return str(found[0]) if found else shutil.which("ptxas")


def assembled(ptx: str, architecture: tuple[int, int]) -> dict[str, int]:
    """Registers, bytes of stack and spilled bytes of the one kernel in `ptx`; fails where `ptxas` does."""
    assembler = ptxas()
    assert assembler, "there is no ptxas; pip install nvidia-cuda-nvcc"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        name = "sm_{}{}".format(*architecture)
        command = [assembler, f"-arch={name}", "-v", file.name, "-o", "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{name}: {done.stderr}"
    return {name: max(map(int, pattern.findall(done.stderr))) for name, pattern in _FOUND.items()}


def measured(group: str) -> Iterator[tuple[str, dict[str, dict[str, int]]]]:
    """What each kernel of a group takes on each architecture."""
    # A device function asks the driver for the device's architecture, though its code does not depend on it.
    numba.cuda.dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=ARCHITECTURES[0])
    for name, (kernel, integers, own) in KERNELS.items():
        if name.startswith(f"{group}/"):
            found = {}
            ptx = ""
            for architecture in ARCHITECTURES:
                if own or not ptx:
                    ptx, _ = cuda.compile_ptx(kernel, signature(integers).args, cc=architecture)
                found["sm_{}{}".format(*architecture)] = assembled(ptx, architecture)
            yield name, found


def shared() -> dict[str, dict[str, int]]:
    """Tile and bytes of shared memory of an LSTM's step by its size."""
    found = {}
    for inputs, hidden in ((1, 32), (8, 64), (25, 80), (38, 128), (512, 512)):
        tile = tile_for(program("lstm"), 0, inputs, hidden, own=False)
        size = 4 * shared_floats(program("lstm"), 0, inputs, hidden, tile)
        found[f"step of lstm ({inputs}, {hidden})"] = {"rows": tile.rows, "warps": tile.groups, "shared": size}
    return found


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        table = {name: found for group in GROUPS for name, found in measured(group)} | shared()
        lines = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in table.items()]
        TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    else:
        print(json.dumps({name: found for group in sys.argv[1:] for name, found in measured(group)}))
