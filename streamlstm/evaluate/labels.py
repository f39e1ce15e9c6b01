"""What is known to be anomalous: windows of time per stream, from a file."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from streamlstm.errors import InputError
from streamlstm.evaluate.times import parse_time
from streamlstm.types import Int64

_LABEL_SUFFIXES = (".csv", ".json")
_DATA_SUFFIXES = {".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".pq", ".gz", ".zst"}

Pairs = list[tuple[int, int]]


def is_column(labels: str) -> bool:
    """Whether what the user gave as labels names a column of the input rather than a file of windows."""
    return not (labels.lower().endswith(_LABEL_SUFFIXES) or "/" in labels or Path(labels).exists())


class Windows:
    """Labelled windows per stream, times in ns since 1970 UTC, both ends inclusive.

    `by_key` maps a label's key to its windows; the key None stands for every stream. A stream matches a label's key
    that is equal, or else one with the same file stem: `realX/file.csv` labels the stream `file`.
    """

    def __init__(self, by_key: Mapping[str | None, Iterable[tuple[int, int]]], source: str = "labels") -> None:
        self._everywhere: Pairs = list(by_key.get(None, ()))
        self._by_key = {key: list(pairs) for key, pairs in by_key.items() if key is not None}
        self._source = source
        self._by_stem: dict[str, list[str]] = {}
        for key in self._by_key:
            self._by_stem.setdefault(_stem(key), []).append(key)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that the labels name, in the order of the file."""
        return tuple(self._by_key)

    def for_key(self, key: str) -> Int64:
        """The windows of a stream, int64 (N, 2) ns, sorted, overlapping ones merged; (0, 2) if it has none."""
        label_key = self._match(key)
        return _union(self._everywhere + (self._by_key[label_key] if label_key is not None else []))

    def unused(self, keys: Iterable[str]) -> tuple[str, ...]:
        """The labels' keys that match none of the streams `keys`; if that is all, the labels are of other data."""
        used = {self._match(key) for key in keys}
        return tuple(key for key in self._by_key if key not in used)

    def _match(self, key: str) -> str | None:
        if key in self._by_key:
            return key
        candidates = self._by_stem.get(_stem(key), [])
        if len(candidates) > 1:
            raise InputError(
                f"{self._source}: stream {key!r} could be {candidates[0]!r} or {candidates[1]!r}; "
                f"write the stream's name in the labels exactly as it is in the data"
            )
        return candidates[0] if candidates else None


def load_windows(path: str) -> Windows:
    """The windows in a file: CSV with a header `start,end` or `key,start,end`, or NAB's JSON `{key: [[start, end]]}`.

    Times are ISO 8601, UTC unless they carry an offset. Without a key (no such column, or an empty cell) a window holds
    for every stream.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise InputError(f"{path}: cannot read the labels: {problem.strerror}; check the path") from problem
    except UnicodeDecodeError as problem:
        raise InputError(f"{path}: not UTF-8 at byte {problem.start}; labels are CSV or JSON text") from problem
    return Windows(_read_json(path, text) if path.lower().endswith(".json") else _read_csv(path, text), path)


def _read_csv(path: str, text: str) -> dict[str | None, Pairs]:
    by_key: dict[str | None, Pairs] = {}
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        header = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = header
        missing = [name for name in ("start", "end") if name not in header]
        if missing:
            raise InputError(
                f"{path}: line 1: no column {missing[0]!r}, got {', '.join(header) or 'nothing'}; "
                f"the header of labels is key,start,end (or start,end for every stream)"
            )
        for row in reader:
            window = _window(f"{path}: line {reader.line_num}", row["start"], row["end"])
            by_key.setdefault(row.get("key") or None, []).append(window)
    except csv.Error as problem:
        raise InputError(f"{path}: line {reader.line_num}: {problem}; labels are CSV key,start,end") from problem
    return by_key


def _read_json(path: str, text: str) -> dict[str | None, Pairs]:
    shape = 'labels in JSON are {"key": [["start", "end"], ...]}'
    try:
        content = json.loads(text)
    except json.JSONDecodeError as problem:
        raise InputError(f"{path}: line {problem.lineno}: {problem.msg}; {shape}") from problem
    if not isinstance(content, dict):
        raise InputError(f"{path}: an object is expected, got {type(content).__name__}; {shape}")
    by_key: dict[str | None, Pairs] = {}
    for key, windows in content.items():
        if not isinstance(windows, list):
            raise InputError(f"{path}: key {key!r}: a list of windows is expected, got {windows!r}; {shape}")
        by_key[key] = []
        for number, window in enumerate(windows, 1):
            where = f"{path}: key {key!r}: window {number}"
            if not isinstance(window, list) or len(window) != 2:
                raise InputError(f"{where}: a start and an end are expected, got {window!r}; {shape}")
            by_key[key].append(_window(where, *window))
    return by_key


def _window(where: str, start: object, end: object) -> tuple[int, int]:
    """(start, end) in ns of two times as texts; `where` begins the message if they are none."""
    bounds = []
    for name, text in (("start", start), ("end", end)):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: {name} is expected, got {text!r}; write a time as in 2024-05-01T12:30:00")
        try:
            bounds.append(parse_time(text))
        except ValueError as problem:
            raise InputError(f"{where}: {name}: {problem}; write it as in 2024-05-01T12:30:00") from None
    if bounds[1] < bounds[0]:
        raise InputError(f"{where}: the end {end!r} lies before the start {start!r}; swap them")
    return bounds[0], bounds[1]


def _stem(key: str) -> str:
    """A file's name without folders and data suffixes; any other key as it is (`pump.7` is no file)."""
    if PurePosixPath(key).suffix.lower() not in _DATA_SUFFIXES:
        return key
    name = PurePosixPath(key).name
    while (suffix := PurePosixPath(name).suffix).lower() in _DATA_SUFFIXES:
        name = name[: -len(suffix)]
    return name


def _union(windows: Pairs) -> Int64:
    merged: list[list[int]] = []
    for start, end in sorted(windows):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return np.array(merged, dtype=np.int64).reshape(-1, 2)
