"""The figures of `bench quality` as tables for people."""

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
Columns = dict[str, Callable[[Row], str]]


def _number(name: str, digits: int) -> Callable[[Row], str]:
    return lambda row: "-" if row.get(name) is None else f"{row[name]:,.{digits}f}"


def _share(row: Row) -> str:
    return f"{row['flagged']:.1%}" if "flagged" in row else "-"


_FLAGS: Columns = {
    "method": lambda row: row["method"], "set": lambda row: row["set"], "true": _number("true", 1),
    "false": _number("false", 1), "missed": _number("missed", 1), "F1": _number("f1", 2), "flagged": _share,
    "promised": _number("promised", 1), "kept": _number("false", 1),
}  # fmt: skip
_DIFFERENCES: Columns = {
    "set": lambda row: row["set"], "mean": _number("difference", 4), "low": _number("low", 4), "high": _number("high", 4),
}  # fmt: skip
_NAB: Columns = {
    "score of a row": lambda row: row["method"], "profile": lambda row: row["profile"],
    "best threshold": _number("best", 1), "threshold 0.5": _number("fixed", 1),
}  # fmt: skip
_NORMAL: Columns = {
    "mode": lambda row: row["mode"], "kind": lambda row: row["kind"], "streams": _number("streams", 0),
    "live days": _number("days", 1), "promised": _number("promised", 1), "kept": _number("kept", 0),
    "most a day": _number("most_per_day", 2),
}  # fmt: skip


def tables(result: Row) -> str:
    """All parts of a result that are there, each under its title."""
    parts = []
    for name, title in (("methods", "Floors, skip and LSTM"), ("ablation", "One part switched off at a time")):
        rows = result.get(name)
        if not rows:
            continue
        parts.append(f"{title}: VUS-PR, mean over streams and its 90 % interval\n{_areas(rows)}")
        flagged = [row for row in rows if "f1" in row]
        flags = _aligned(_FLAGS, [*flagged, *_sums(flagged)])
        parts.append(f"{title}: sequences and false alarms, summed over streams, mean of seeds\n{flags}")
    titles = (
        (
            "differences",
            "VUS-PR with the LSTM minus that of the linear skip alone, same streams, 90 % interval",
            _DIFFERENCES,
        ),
        ("nab", "NAB, learned online, 100 is perfect and 0 is silence", _NAB),
        ("normal", "Alarms on synthetic streams without anomalies", _NORMAL),
    )
    parts += [f"{title}\n{_aligned(columns, result[name])}" for name, title, columns in titles if result.get(name)]
    return "\n\n".join(parts)


def _areas(rows: Sequence[Row]) -> str:
    at = {(row["method"], row["set"]): row for row in rows}
    streams = {row["set"]: row["streams"] for row in rows}

    def cell(group: str) -> Callable[[Row], str]:
        return lambda row: "{vus_pr:.3f} [{vus_pr_low:.3f} {vus_pr_high:.3f}]".format(**at[row["method"], group])

    columns: Columns = {"method": lambda row: row["method"]}
    columns |= {f"{group} ({count} streams)": cell(group) for group, count in streams.items()}
    methods = dict.fromkeys(row["method"] for row in rows)
    return _aligned(columns, [{"method": method} for method in methods])


def _sums(rows: Sequence[Row]) -> list[Row]:
    """False alarms of all sets together and the mean F1, by method."""
    sums = []
    for method in dict.fromkeys(row["method"] for row in rows):
        ones = [row for row in rows if row["method"] == method]
        total = {"method": method, "set": "all", "false": sum(row["false"] for row in ones)}
        total["promised"] = None if ones[0]["promised"] is None else sum(row["promised"] for row in ones)
        total["f1"] = sum(row["f1"] for row in ones) / len(ones)
        sums.append(total)
    return sums


def _aligned(columns: Columns, rows: Sequence[Row]) -> str:
    cells = [tuple(columns), *(tuple(show(row) for show in columns.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = {
        n for n, name in enumerate(columns) if name in ("method", "set", "score of a row", "profile", "mode", "kind")
    }
    return "\n".join(
        "  ".join(
            c.ljust(w) if n in left else c.rjust(w) for n, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
