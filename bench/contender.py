"""The child process: `python -m bench.contender prepare|measure BENCH CASE CONTENDER FOLDER` prints values by unit.

A benchmark's module has two functions: `prepare(case, folder)` makes files that all contenders share and raises
Disagreement where their outputs differ; `measure(case, contender, folder)` returns values by unit.
"""

import importlib
import json
import os
import sys
from pathlib import Path

from bench.agreement import Disagreement


def main(arguments: list[str]) -> int:
    """The exit status: 0, or 1 with one line on standard error."""
    what, name, case, contender, folder = arguments
    if contender.endswith("two_threads"):
        os.environ["NUMBA_NUM_THREADS"] = "2"  # read when Numba is imported
    module = importlib.import_module(f"bench.{name}")
    try:
        if what == "prepare":
            module.prepare(case, Path(folder))
            values = {}
        else:
            values = module.measure(case, contender, Path(folder))
    except Disagreement as error:
        print(error, file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed; pip install 'streamlstm[bench]' has the peers", file=sys.stderr)
        return 1
    print(json.dumps(values))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
