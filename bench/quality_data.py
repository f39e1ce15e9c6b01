"""Labelled recordings for `bench quality`: streams of MSL, ASD and SMD with a train part, and the files of NAB."""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamlstm.evaluate import load_windows
from streamlstm.evaluate.times import parse_time
from streamlstm.types import Float64, Int64, UInt8

SETS = ("msl", "asd", "smd")
VARIABLE = "STREAMLSTM_DATA"
_BESIDE_THE_CHECKOUT = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
_LABELS = "combined_windows.json"


class DataMissingError(Exception):
    """The recordings are not where they were looked for."""


@dataclass(frozen=True, slots=True)
class Stream:
    """T rows to fit on and U to judge: train (T, I), test (U, I), the first D of the I columns are predicted; label (U)."""

    group: str
    name: str
    features: int
    train: Float64
    test: Float64
    label: UInt8


@dataclass(frozen=True, slots=True)
class NabFile:
    """time (U) ns since 1970 UTC, x (U), windows (N, 2) as first and last row."""

    name: str
    time: Int64
    x: Float64
    windows: Int64


def find_folder(given: Path | None) -> Path:
    """The folder of the recordings: the one given, else that of the environment, else the one beside the checkout."""
    folder = given or Path(os.environ.get(VARIABLE) or _BESIDE_THE_CHECKOUT)
    if not folder.is_dir():
        raise DataMissingError(
            f"{folder}: no such folder; name the one that holds msl/, asd/, smd/, nab/: --data or {VARIABLE}"
        )
    return folder


def stream_paths(folder: Path, group: str, limit: int | None) -> list[Path]:
    """The files of one of `SETS`, the first `limit` by name; DataMissingError where there are none."""
    paths = sorted((folder / group).glob("*.npz"))[:limit]
    if not paths:
        raise DataMissingError(f"{folder / group}: holds no .npz; --sets leaves a set out")
    return paths


def read_stream(path: Path) -> Stream:
    """One stream; of MSL the rover's commands are the columns after the telemetry."""
    with np.load(path) as arrays:
        parts = ["_telemetry", "_commands"] if "train_telemetry" in arrays else [""]
        train, test = (
            [arrays[side + part].astype(np.float64).reshape(len(arrays[side + part]), -1) for part in parts]
            for side in ("train", "test")
        )
        label = arrays["test_label"].astype(np.uint8)
    return Stream(path.parent.name, path.stem, train[0].shape[1], np.hstack(train), np.hstack(test), label)


def read_nab(folder: Path, limit: int | None) -> Iterator[NabFile]:
    """The labelled files of NAB, the first `limit` by name, those with windows before those without.

    DataMissingError where one that is labelled is not there.
    """
    labels = folder / "nab" / "labels" / _LABELS
    if not labels.is_file():
        raise DataMissingError(f"{labels}: no such file; --sets leaves nab out")
    windows = load_windows(str(labels))
    held = {path.relative_to(folder / "nab" / "data").as_posix() for path in (folder / "nab" / "data").rglob("*.csv")}
    if missing := sorted(set(windows.keys) - held) if limit is None else []:
        raise DataMissingError(f"{labels}: {len(missing)} files have labels and are not there, the first: {missing[0]}")
    for name in sorted(held & set(windows.keys), key=lambda name: (len(windows.for_key(name)) == 0, name))[:limit]:
        with (folder / "nab" / "data" / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        time = np.array([parse_time(row["timestamp"]) for row in rows], np.int64)
        inside = [np.flatnonzero((time >= first) & (time <= last)) for first, last in windows.for_key(name)]
        pairs = np.array([(at[0], at[-1]) for at in inside], np.int64).reshape(-1, 2)
        yield NabFile(name, time, np.array([float(row["value"]) for row in rows]), pairs)
