"""`python -m bench readme FILE`: writes the table of README.md, between its two marks, from the JSON of a run."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from bench.catalog import CATALOG, LABELS, OURS, SIZES, step_case
from bench.table import shown

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
_VERSIONS = ("python", "streamlstm", "numpy", "numba", "llvmlite", "onnxruntime", "torch")
_HEAD = "| work | ours | contender | ours / contender |\n|---|---:|---|---:|\n"

Key = tuple[str, str, str]
"""Benchmark, case and contender of a measured row."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: the key of our time, and those of the times beside it by their labels."""

    work: str
    ours: Key
    beside: Mapping[str, Key]


def _against(work: str, bench: str, case: str, *peers: str) -> Line:
    return Line(work, (bench, case, OURS), {LABELS[peer]: (bench, case, peer) for peer in peers})


LINES = (
    *(
        _against(f"step, one event, I={I}, H={H}", "single", step_case(I, H, 1), "onnxruntime_bound")
        for I, H in SIZES[:2]
    ),
    *(
        _against(f"step, 8 192 streams, I={I}, H={H}", "step", step_case(I, H, 8192), "onnxruntime", "torch")
        for I, H in SIZES
    ),
    _against("sequence, 10 000 steps, I=1, H=32", "sequence", "I=1,H=32,steps=10000", "onnxruntime", "torch"),
    _against(
        "multiply-add of a step, LSTM and our other cells", "cells", "I=8,H=64,batch=8192", *CATALOG["cells"].peers
    ),
    *(
        _against(f"training, 64 lanes, I={I}, H={H}", "fit", f"I={I},H={H},batch=64,window=100", "torch")
        for I, H in SIZES[:3]
    ),
    Line(
        "training on two threads, I=8, H=64",
        ("fit", "I=8,H=64,batch=64,window=100", "two_threads"),
        {"one thread": ("fit", "I=8,H=64,batch=64,window=100", OURS)},
    ),
    _against("learning online, one stream, H=32, windows of 16", "online", "streams=1,H=32,window=16", "deep_river"),
    Line(
        "whole call, 1 000 000 streams, I=1, H=32",
        ("scale", "I=1,H=32,streams=1000000", OURS),
        {"10 000 streams": ("scale", "I=1,H=32,streams=10000", OURS)},
    ),
    Line(
        "whole call, two threads, I=38, H=128",
        ("step", "I=38,H=128,batch=8192", "compiled_call_two_threads"),
        {"one thread": ("step", "I=38,H=128,batch=8192", "compiled_call")},
    ),
)


def main(arguments: list[str]) -> int:
    """The exit status: 0, also where figures are missing, which is said; 2 for a wrong command line or file."""
    parser = argparse.ArgumentParser(prog="python -m bench readme", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="what --json wrote, or --output as bench.json")
    path = parser.parse_args(arguments).file
    try:
        result = json.loads(path.read_text())
        header, rows = result["header"], result["rows"]
    except OSError as error:
        parser.error(f"{path}: {error.strerror}")
    except (ValueError, KeyError, TypeError):
        parser.error(f"{path}: is not what `python -m bench NAME... --json FILE` writes")
    written, missing = table(header, rows)
    README.write_text(filled(README.read_text(), written))
    for key in missing:
        print(f"left out, not in {path}: {' '.join(key)}")
    return 0


def table(header: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[str, list[Key]]:
    """The table with what it was measured on, as Markdown, and the keys of the figures that it lacks."""
    times = {(row["bench"], row["case"], row["contender"]): row for row in rows}
    written, missing = [], []
    for line in LINES:
        missing += [key for key in (line.ours, *line.beside.values()) if key not in times]
        beside = {label: times[key] for label, key in line.beside.items() if key in times}
        if line.ours in times and beside:
            ours = times[line.ours]
            theirs = ", ".join(f"{label} {_time(row)}" for label, row in beside.items())
            ratios = ", ".join(f"{ours['value'] / row['value']:.2f}" for row in beside.values())
            written.append(f"| {line.work} | {_time(ours)} | {theirs} | {ratios} |\n")
    return f"{_HEAD}{''.join(written)}\n{_measured(header)}\n", missing


def filled(readme: str, written: str) -> str:
    """README with this between its marks."""
    begin, end = readme.index(BEGIN) + len(BEGIN), readme.index(END)
    return f"{readme[:begin]}\n{written}{readme[end:]}"


def _time(row: dict[str, Any]) -> str:
    return f"{shown(row['value'])} {row['unit'].partition('/')[0]}"


def _measured(header: dict[str, Any]) -> str:
    kernels = f", kernels for {header['compiled_for']}" if "compiled_for" in header else ""  # not in files before it
    versions = ", ".join(f"{name} {header['versions'][name]}" for name in _VERSIONS if header["versions"].get(name))
    machine = f"{header['processor']}, {header['cores']} cores{kernels}"
    return fill(f"Measured on {header['date'][:10]}: {machine}; {versions}; median of {header['rounds']} rounds.", 120)
