"""What two runs' outputs have in common and what not: alerts that appeared, vanished, moved or changed; scores that differ.

Alerts (flags, episodes) belong together by their id, else by stream and overlap. Scores belong together by stream and row;
where a stream has a row more than once, as records of several files may, in their order.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamlstm.errors import UsageError
from streamlstm.evaluate.outputs import Kind, read_output
from streamlstm.types import Int64

Bools = npt.NDArray[np.bool_]

_ORIGIN = ("model", "config", "schema_version", "id")  # says who wrote the row, not what it says
_PLACES: dict[Kind, tuple[str, ...]] = {"flags": ("key", "time"), "episodes": ("key", "opened", "closed", "peak_time")}
_SPANS: dict[Kind, tuple[str, str]] = {"flags": ("time", "time"), "episodes": ("opened", "closed")}
_ROWS: dict[Kind, tuple[str, str]] = {"flags": ("row", "row"), "episodes": ("first", "last")}
_SEVERITY: dict[Kind, str] = {"flags": "severity", "episodes": "peak_severity"}
_FOREVER = np.iinfo(np.int64).max  # where an open episode ends


@dataclass(frozen=True, slots=True)
class Alert:
    """One flag or episode of one file, as people read it; a flag ends when it begins."""

    id: str
    key: str
    begin: str
    end: str
    severity: float


@dataclass(frozen=True, slots=True)
class Alerts:
    """How the alerts of B differ from those of A.

    counts, repeats of A and of B; repeats are rows with the id of an earlier one, which are left out
    moved           the same stream, but another id, span or peak
    changed         the same place, but other numbers
    """

    kind: Kind
    counts: tuple[int, int]
    repeats: tuple[int, int]
    equal: int
    appeared: list[Alert]
    vanished: list[Alert]
    moved: list[tuple[Alert, Alert]]
    changed: list[tuple[Alert, Alert]]

    @property
    def same(self) -> bool:
        """Whether both hold the same alerts."""
        return not (self.appeared or self.vanished or self.moved or self.changed)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of scores: rows in which it differs, and by how much at most (None where it is no number)."""

    name: str
    rows: int
    largest: float | None


@dataclass(frozen=True, slots=True)
class FirstRow:
    """The first row of a stream whose scores differ, with the columns that do."""

    key: str
    row: int
    time: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """How the scores of B differ from those of A; `missing` are the rows of A, and of B, that the other has not."""

    kind: Kind
    counts: tuple[int, int]
    missing: tuple[int, int]
    rows: int
    columns: list[Column]
    streams: list[FirstRow]

    @property
    def same(self) -> bool:
        """Whether both hold the same scores."""
        return not (self.rows or any(self.missing))


Comparison = Alerts | Scores


def compare(a: str, b: str) -> Comparison:
    """The differences of two files of the same kind; InputError, or UsageError where the kinds differ."""
    kind_a, table_a = read_output(a)
    kind_b, table_b = read_output(b)
    kind = kind_a or kind_b or "flags"
    if kind_a and kind_b and kind_a != kind_b:
        raise UsageError(f"{a} holds {kind_a} and {b} holds {kind_b}; compare two files of the same kind")
    table_a, table_b = (
        table if found else (table_b if kind_b else table_a).slice(0, 0)
        for table, found in ((table_a, kind_a), (table_b, kind_b))
    )
    if not kind_a and not kind_b:
        return Alerts(kind, (0, 0), (0, 0), 0, [], [], [], [])
    return _scores(table_a, table_b) if kind == "scores" else _alerts(kind, table_a, table_b)


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison for JSON."""
    return {"same": comparison.same, **asdict(comparison)}


# ---- alerts


def _alerts(kind: Kind, a: pa.Table, b: pa.Table) -> Alerts:
    counts = len(a), len(b)
    a, b = _distinct(a), _distinct(b)
    at_of = {name: n for n, name in enumerate(a["id"].to_pylist())}
    found = np.array([at_of.get(name, -1) for name in b["id"].to_pylist()], np.int64)
    pairs_b = np.flatnonzero(found >= 0)
    pairs_a = found[pairs_b]
    left_a, left_b = np.setdiff1d(np.arange(len(a)), pairs_a), np.flatnonzero(found < 0)
    together = _overlapping(kind, a.take(left_a), b.take(left_b))
    shifted = [(int(left_a[n]), int(left_b[m])) for n, m in together]
    alone_a = np.delete(left_a, [n for n, _ in together])
    alone_b = np.delete(left_b, [m for _, m in together])

    one, other = a.take(pairs_a), b.take(pairs_b)
    elsewhere = _differing(one, other, _PLACES[kind]).any(axis=0)
    names = tuple(n for n in a.column_names if n in b.column_names and n not in (*_ORIGIN, *_PLACES[kind]))
    otherwise = _differing(one, other, names).any(axis=0) & ~elsewhere
    moved = sorted([(int(n), int(m)) for n, m in zip(pairs_a[elsewhere], pairs_b[elsewhere], strict=True)] + shifted)
    changed = [(int(n), int(m)) for n, m in zip(pairs_a[otherwise], pairs_b[otherwise], strict=True)]

    def told(pairs: list[tuple[int, int]]) -> list[tuple[Alert, Alert]]:
        return list(zip(_told(kind, a, [n for n, _ in pairs]), _told(kind, b, [m for _, m in pairs]), strict=True))

    return Alerts(
        kind,
        counts,
        (counts[0] - len(a), counts[1] - len(b)),
        int(len(pairs_a) - elsewhere.sum() - otherwise.sum()),
        _told(kind, b, alone_b),
        _told(kind, a, alone_a),
        told(moved),
        told(changed),
    )


def _distinct(table: pa.Table) -> pa.Table:
    """The first row of each id."""
    first = dict(reversed([(name, n) for n, name in enumerate(table["id"].to_pylist())]))
    return table if len(first) == len(table) else table.take(sorted(first.values()))


def _overlapping(kind: Kind, a: pa.Table, b: pa.Table) -> list[tuple[int, int]]:
    """Positions in `a` and `b` of alerts of the same stream that overlap in time, without times in rows; each once."""
    timed = not (_missing(a, kind) or _missing(b, kind))
    names = (_SPANS if timed else _ROWS)[kind]
    spans_b: dict[str, list[tuple[int, int, int]]] = {}
    for key, begin, end, m in sorted(_spans(b, names)):
        spans_b.setdefault(key, []).append((begin, end, m))
    pairs = []
    for key, begin, end, n in sorted(_spans(a, names)):
        waiting = spans_b.get(key, [])
        while waiting and waiting[0][1] < begin:  # ended before this one, and so before all that follow
            waiting.pop(0)
        if waiting and waiting[0][0] <= end:
            pairs.append((n, waiting.pop(0)[2]))
    return pairs


def _missing(table: pa.Table, kind: Kind) -> bool:
    return bool(table[_SPANS[kind][0]].null_count)


def _spans(table: pa.Table, names: tuple[str, str]) -> list[tuple[str, int, int, int]]:
    begin, end = (_integers(table[name], _FOREVER) for name in names)
    return list(zip(table["key"].to_pylist(), begin.tolist(), end.tolist(), range(len(table)), strict=True))


def _told(kind: Kind, table: pa.Table, rows: Any) -> list[Alert]:
    chosen = table.take(pa.array(rows, pa.int64()))
    begin, end = (_texts(chosen[name]) for name in _SPANS[kind])
    severity = chosen[_SEVERITY[kind]].to_pylist()
    severity = [float("nan") if value is None else float(value) for value in severity]
    return [
        Alert(*facts)
        for facts in zip(chosen["id"].to_pylist(), chosen["key"].to_pylist(), begin, end, severity, strict=True)
    ]


# ---- scores


def _scores(a: pa.Table, b: pa.Table) -> Scores:
    at_a, at_b = _aligned(a, b)
    one, other = a.take(at_a), b.take(at_b)
    names = tuple(name for name in a.column_names if name in b.column_names and name not in ("key", "row"))
    differing = _differing(one, other, names)
    columns = [
        Column(name, int(rows.sum()), _largest(one[name], other[name], rows))
        for name, rows in zip(names, differing, strict=True)
        if rows.any()
    ]
    rows: Bools = np.any(differing, axis=0)
    return Scores(
        "scores", (len(a), len(b)), (len(a) - len(at_a), len(b) - len(at_b)), int(rows.sum()), columns,
        _first_rows(one, names, differing, rows),
    )  # fmt: skip


def _aligned(a: pa.Table, b: pa.Table) -> tuple[Int64, Int64]:
    """Positions int64 (n) of the rows that both have, in `a`, ascending, and in `b`."""
    if a["key"].equals(b["key"]) and a["row"].equals(b["row"]):
        return np.arange(len(a)), np.arange(len(b))
    keys = pa.chunked_array([*a["key"].chunks, *b["key"].chunks], pa.string()).combine_chunks().dictionary_encode()
    key = keys.indices.to_numpy(zero_copy_only=False)
    row = np.concatenate([_integers(a["row"], -1), _integers(b["row"], -1)])
    side = np.repeat([0, 1], [len(a), len(b)])
    order = np.lexsort((row, key, side))  # stable: repeats of a row keep their order
    new = np.ones(len(order), bool)
    if len(order):
        new[1:] = (np.diff(row[order]) != 0) | (np.diff(key[order]) != 0) | (np.diff(side[order]) != 0)
    starts = np.flatnonzero(new)
    repeat = np.empty(len(order), np.int64)  # how often the row stood before
    repeat[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    order = np.lexsort((side, repeat, row, key))
    same = np.ones(max(len(order) - 1, 0), bool)
    for values in (key, row, repeat):
        same &= np.diff(values[order]) == 0
    at_a, at_b = order[:-1][same], order[1:][same] - len(a)
    by_a = np.argsort(at_a, kind="stable")
    return at_a[by_a], at_b[by_a]


def _first_rows(table: pa.Table, names: tuple[str, ...], differing: Bools, rows: Bools) -> list[FirstRow]:
    at = np.flatnonzero(rows)
    keys = table["key"].take(at).combine_chunks().dictionary_encode()
    _, first = np.unique(keys.indices.to_numpy(zero_copy_only=False), return_index=True)
    at = at[np.sort(first)]
    facts = zip(
        table["key"].take(at).to_pylist(),
        table["row"].take(at).to_pylist(),
        _texts(table["time"].take(at)),
        strict=True,
    )
    return [
        FirstRow(key, row, time, tuple(name for name, column in zip(names, differing[:, n], strict=True) if column))
        for n, (key, row, time) in zip(at, facts, strict=True)
    ]


# ---- columns


def _differing(a: pa.Table, b: pa.Table, names: tuple[str, ...]) -> Bools:
    """Where the columns of two tables of the same length differ, bool (names, rows); nothing equals nothing."""
    out = np.zeros((len(names), len(a)), bool)
    for n, name in enumerate(names):
        one, other = a[name].combine_chunks(), b[name].combine_chunks()
        none, no_other = (np.asarray(c.is_null(nan_is_null=True)) for c in (one, other))
        if pa.types.is_string(one.type):
            codes = pa.chunked_array([one, other]).combine_chunks().dictionary_encode().indices.fill_null(-1)
            values = codes.to_numpy(zero_copy_only=False)
            out[n] = values[: len(a)] != values[len(a) :]
        else:
            out[n] = (_numbers(one) != _numbers(other)) & ~(none & no_other)
            out[n] |= none != no_other
    return out


def _largest(a: pa.ChunkedArray, b: pa.ChunkedArray, rows: Bools) -> float | None:
    """The largest difference of two columns of floats, None where they hold something else or nothing on one side."""
    if not pa.types.is_floating(a.type):
        return None
    gaps = np.abs(_numbers(a.combine_chunks())[rows].astype(np.float64) - _numbers(b.combine_chunks())[rows])
    finite = gaps[np.isfinite(gaps)]
    return float(finite.max()) if len(finite) else None


def _numbers(column: pa.Array) -> npt.NDArray[Any]:
    if pa.types.is_floating(column.type):
        values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return values
    if pa.types.is_boolean(column.type):
        return np.asarray(column.cast(pa.int8()).fill_null(0))
    return _integers(pa.chunked_array([column]), 0)


def _integers(column: pa.ChunkedArray, missing: int) -> Int64:
    whole: Int64 = column.cast(pa.int64()).fill_null(missing).to_numpy()
    return whole


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Times as text, `` for none."""
    values = column.combine_chunks().to_numpy(zero_copy_only=False).astype("datetime64[ns]")
    texts = np.datetime_as_string(values, unit="ms").tolist()
    return ["" if text == "NaT" else f"{text.removesuffix('.000')}Z" for text in texts]
