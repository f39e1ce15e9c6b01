"""`python -m bench quality`: how good scores and flags are, beside the floors that any detector must beat.

One default configuration for every stream, causal, labels for the judgement alone. MSL, ASD and SMD are fitted on their
train part and judged on their test part; NAB's files are learned online from their first row, also with the preset that was
chosen on them.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from bench.header import machine_and_versions
from bench.quality_data import SETS, VARIABLE, DataMissingError, find_folder, read_nab, stream_paths
from bench.quality_normal import STREAMS
from bench.quality_product import (
    ABLATION,
    BOTH,
    LINEAR,
    LSTM,
    VARIANTS,
    Job,
    Overrides,
    configuration,
    count_alarms,
    judge,
    nab_scores,
)
from bench.quality_summary import by_method, differences, nab_rows, normal_rows
from bench.quality_table import tables
from streamlstm.config import parse_setting
from streamlstm.errors import ConfigError
from streamlstm.evaluate import promised_rate

PARTS = (*SETS, "nab", "normal")
METHOD = (
    "one configuration for every stream (NAB: also the preset that was chosen on its files), a model per stream, causal; "
    "a stream's value is the mean of its seeds; "
    "intervals: 90 %, percentile bootstrap over streams; an alarm is an episode opened, true if it overlaps a label; "
    "promised: at the configured rate over all rows outside labels, 1440 a day"
)
T = TypeVar("T")


def main(arguments: list[str]) -> int:
    """The exit status: 0, or 2 for a wrong command line or missing data."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        sets = [name for name in PARTS if name in chosen.sets.split(",")]
        seeds = [int(text) for text in chosen.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds: must be whole numbers between commas, got {chosen.seeds!r}")
    if wrong := [name for name in chosen.sets.split(",") if name not in PARTS]:
        parser.error(f"--sets: no set {wrong[0]!r}; there are {', '.join(PARTS)}")
    if (chosen.streams is not None and chosen.streams < 1) or chosen.processes < 1:
        parser.error("--streams, --processes: must be at least 1")
    try:
        overrides = dict(parse_setting(text) for text in chosen.settings)
        promised = promised_rate(configuration(overrides, seeds[0]).threshold)
        folder = find_folder(chosen.data) if set(sets) - {"normal"} else Path()
        plan = Plan(folder, tuple(sets), tuple(seeds), chosen.streams, overrides, chosen.ablation, chosen.processes)
        result = run(plan, promised)
    except (DataMissingError, ConfigError) as error:
        parser.error(str(error))
    print(tables(result))
    header = machine_and_versions(1) | {"method": METHOD, "seeds": seeds, "overrides": overrides}
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"header": header, **result}, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench quality", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"recordings; else ${VARIABLE}, else ../shared/data")
    parser.add_argument("--sets", default=",".join(PARTS), help="which of %(default)s")
    parser.add_argument("--seeds", default="0,1,2", help="of the LSTM and of random scores (default %(default)s)")
    parser.add_argument("--streams", type=int, metavar="N", help="the first N of each set alone")
    parser.add_argument("--ablation", action="store_true", help="also every part of the score switched off, first seed")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="as replay's")
    parser.add_argument("--processes", type=int, default=2, help="how many work at once (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write header and rows there")
    return parser


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: of each set the first `limit` streams (None: all), with these settings, by so many processes."""

    folder: Path
    sets: tuple[str, ...]
    seeds: tuple[int, ...]
    limit: int | None
    overrides: Overrides
    ablation: bool
    processes: int


def run(plan: Plan, promised: float | None) -> dict[str, Any]:
    """The rows of every table, and single outcomes; `promised` false alarms a day stand beside those that were kept."""
    paths = [path for group in plan.sets if group in SETS for path in stream_paths(plan.folder, group, plan.limit)]
    files = list(read_nab(plan.folder, plan.limit)) if "nab" in plan.sets else []
    streams = range(plan.limit or STREAMS) if "normal" in plan.sets else range(0)
    jobs = [Job(path, "floors", None, plan.seeds[0]) for path in paths] + _jobs(paths, plan, VARIANTS)
    less = _jobs(paths, plan, ABLATION) if plan.ablation else []
    seed, overrides = plan.seeds[0], plan.overrides
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with ProcessPoolExecutor(plan.processes, get_context("spawn")) as pool:
        # Several processes that fill the compile cache at once would each do all of the work.
        pool.submit(count_alarms, 0, overrides, seed).result()
        judged = list(chain.from_iterable(_tell("streams", pool.map(judge, jobs), len(jobs))))
        without = list(chain.from_iterable(_tell("ablation", pool.map(judge, less), len(less))))
        nab = {
            n: list(_tell("nab", pool.map(nab_scores, files, repeat(overrides), repeat(n)), len(files)))
            for n in plan.seeds
        }
        counted = pool.map(count_alarms, streams, repeat(overrides), repeat(seed))
        normal = list(chain.from_iterable(_tell("normal", counted, len(streams))))
    both = [one for one in judged if one.method in (LINEAR, BOTH)]
    whole = [one for one in both if one.seed == seed]
    return {
        "methods": by_method(judged, promised),
        "differences": differences(both),
        "ablation": by_method([*whole, *without], promised) if without else [],
        "nab": nab_rows(files, nab) if files else [],
        "normal": normal_rows(normal, promised),
        "streams": [asdict(one) for one in [*judged, *without]],
        "normal_streams": [asdict(one) for one in normal],
    }


def _jobs(paths: Iterable[Path], plan: Plan, methods: Mapping[str, Overrides]) -> list[Job]:
    """Every stream under every method; only the variants with an LSTM for each seed."""
    return [
        Job(path, method, {**plan.overrides, **changed}, seed)
        for path in paths
        for method, changed in methods.items()
        for seed in (plan.seeds if method in (LSTM, BOTH) else plan.seeds[:1])
    ]


def _tell(what: str, results: Iterable[T], count: int) -> Iterator[T]:
    """The results, with a line on standard error at every tenth of them."""
    for number, result in enumerate(results, 1):
        if number * 10 // count > (number - 1) * 10 // count:
            print(f"{what}: {number} of {count}", file=sys.stderr, flush=True)
        yield result
