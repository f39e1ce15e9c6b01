"""`--workers`: processes that share the streams give the bytes that one gives."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from streamlstm.errors import UsageError
from streamlstm.service.replay import replay
from streamlstm.service.training import fit_files


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven streams, two hundred records each, one with a level shift at its end."""
    rng = np.random.default_rng(0)
    rows, streams = 200, 7
    key = np.tile(np.arange(streams), rows)
    value = np.sin(np.repeat(np.arange(rows), streams) / 6 + key) + rng.normal(0, 0.1, rows * streams)
    value[(key == 3) & (np.repeat(np.arange(rows), streams) > 170)] += 6
    path = tmp_path_factory.mktemp("workers") / "streams.csv"
    time = np.repeat(np.arange(rows), streams) * 60 + 1_700_000_000
    table = pa.table({"time": time, "key": [f"pump-{k}" for k in key], "value": value})
    pa_csv.write_csv(table, path)
    return path


def test_two_workers_write_what_one_writes(recording: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    fit_files(
        [str(recording)],
        model,
        overrides={"training.updates": 5, "model.hidden_size": 8, "learning.calibrating_rows": 20},
        until="0.7",
    )
    outputs: list[list[bytes]] = []
    for workers in (1, 2):
        names = [tmp_path / f"{name}-{workers}.csv" for name in ("flags", "scores", "episodes")]
        flags, scores, episodes = map(str, names)
        summary = replay(
            [str(recording)],
            model=model,
            overrides={"runtime.batch_rows": 500},
            flags=flags,
            scores=scores,
            scores_detail=True,
            episodes=episodes,
            workers=workers,
        )
        assert summary.records == 1400
        assert summary.streams == 7
        assert summary.flags > 0
        outputs.append([name.read_bytes() for name in names])
    actual, expected = outputs[1], outputs[0]
    assert actual == expected


def test_weights_that_learn_are_not_divided(recording: Path) -> None:
    with pytest.raises(UsageError, match="--workers: shared weights that learn have one copy"):
        replay([str(recording)], workers=2)
