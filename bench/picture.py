"""Pictures of time over H: a line per contender, and dashed the limit that the benchmark's goal sets."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from bench.catalog import CATALOG, LABELS, OURS, Benchmark, numbers

_STYLE = {
    "svg.fonttype": "none",  # text stays text: sharp, and a change of it is a change of its line
    "svg.hashsalt": "streamlstm",  # equal pictures are equal files
}
_MARKERS = dict(zip(LABELS, "oDsv^PX*<>hd8p", strict=False))
_COLOURS = {contender: "black" if contender == OURS else f"C{n}" for n, contender in enumerate(LABELS)}

Row = dict[str, Any]
Times = dict[str, dict[tuple[int, int], float]]
"""Nanoseconds per event by contender and (I, H), the smallest H first."""


def write_pictures(header: dict[str, Any], rows: list[Row], folder: Path) -> None:
    """Writes NAME.svg for each benchmark of the rows whose cases differ by H."""
    for name in dict.fromkeys(row["bench"] for row in rows):
        if CATALOG[name].over_hidden:
            with mpl.rc_context(_STYLE):
                draw(CATALOG[name], header, rows).savefig(folder / f"{name}.svg", metadata={"Date": None})


def draw(benchmark: Benchmark, header: dict[str, Any], rows: list[Row]) -> Figure:
    """The picture of one benchmark; without the limit on a processor for which the goal says nothing."""
    times: Times = {}
    for row in rows:
        if row["bench"] == benchmark.name:
            size = numbers(row["case"])
            times.setdefault(row["contender"], {})[size["I"], size["H"]] = row["value"]
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    slowest_first = sorted(times, key=lambda contender: -max(times[contender].values()))  # the legend as the lines lie
    for contender in slowest_first:
        sizes, values = zip(*times[contender].items(), strict=True)
        style = {"marker": _MARKERS[contender], "color": _COLOURS[contender], "label": LABELS[contender]}
        if contender == OURS:
            style |= {"linewidth": 3, "zorder": 1}  # below the others, which it would hide
        axes.plot([H for _, H in sizes], values, **style)
    _draw_limit(axes, benchmark, header["compiled_for"], times)
    axes.set_xticks([H for _, H in times[OURS]], [f"I={I}, H={H}" for I, H in times[OURS]])
    axes.set_xlabel("inputs I, hidden units H")
    axes.set_yscale("log")
    axes.set_ylabel("ns per event")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    onnxruntime = f"ONNX Runtime {header['versions']['onnxruntime']}"
    machine = f"{header['processor']}, kernels for {header['compiled_for']}, {onnxruntime}, {header['date'][:10]}"
    figure.suptitle(f"{benchmark.name}: {benchmark.says}", fontsize=10)
    axes.set_title(machine, fontsize=9, color="dimgray")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_limit(axes: Axes, benchmark: Benchmark, compiled_for: str, times: Times) -> None:
    goal = benchmark.goal
    if goal is None or compiled_for not in goal.shares:
        return
    shares, theirs = goal.shares[compiled_for], times[goal.peer]
    span = " to ".join(dict.fromkeys(f"{share:.2f}" for share in (min(shares.values()), max(shares.values()))))
    limits = [shares[size] * theirs[size] for size in theirs]
    axes.plot([H for _, H in theirs], limits, "--", color="black", label=f"limit: {span} × {LABELS[goal.peer]}")
