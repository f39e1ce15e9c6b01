"""`streamlstm state`, and which settings hold when a model file and a configuration meet."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from streamlstm.cli.app import run as run_cli
from streamlstm.config import Config, config_hash
from streamlstm.detect.detector import Detector
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.files import save_model
from streamlstm.service.opening import resolve
from streamlstm.service.snapshots import Owner, PartitionSnapshots
from streamlstm.service.writer import Writer
from streamlstm.state.stores import FolderStore, MemoryStore, SnapshotStore
from streamlstm.types import EventBatch

MINUTE = 60_000_000_000
ROWS = 400


def wave(rows: int) -> np.ndarray:
    return np.sin(np.arange(rows) / 7) + 0.1 * np.random.default_rng(0).normal(size=rows)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose configuration says something in every section."""
    config = Config.model_validate({
        "input": {"time": "when", "features": ("value",)},
        "model": {"hidden_size": 8, "file": "older.safetensors"},
        "training": {"updates": 5},
        "learning": {"learning_rows": 20, "calibrating_rows": 30},
        "threshold": {"kind": "sigma", "sigmas": 3.0},
        "kafka": {"topics": ("elsewhere",), "group_id": "elsewhere"},
        "outputs": {"flags": "elsewhere.csv"},
        "delivery": {"snapshots": "elsewhere"},
        "service": {"stop_budget_s": 1.0},
        "runtime": {"threads": 2},
        "messages": {"format": "csv"},
    })  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(fit({"s": Recording(np.arange(600) * MINUTE, wave(600)[:, None])}, config, ("value",)), path)
    return path


@pytest.fixture
def config_path(tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration that keeps its state in `kept`, in the working folder."""
    monkeypatch.chdir(tmp_path)
    content = {
        "extends": "kafka",
        "model": {"file": str(model_path)},
        "threshold": {"sigmas": 2.0},
        "delivery": {"snapshots": "kept"},
    }
    Path("c.yaml").write_text(yaml.safe_dump(content))
    return "c.yaml"


# ---- settings


def test_what_a_model_was_fitted_with_holds_where_the_configuration_is_silent(
    config_path: str, model_path: Path
) -> None:
    config, model = resolve(config_path, None, {"threshold.floor": 0.5})
    assert model is not None
    assert (config.model.hidden_size, config.model.file) == (8, str(model_path))
    assert (config.input.time, config.threshold.kind) == ("when", "sigma")
    assert (config.threshold.sigmas, config.threshold.floor) == (2.0, 0.5)
    default = Config()
    assert (config.messages, config.runtime, config.service) == (default.messages, default.runtime, default.service)
    assert (config.kafka.topics, config.kafka.group_id) == ((), "streamlstm")
    assert (config.outputs.flags, config.delivery.snapshots) == ("kafka:streamlstm-flags", "kept")


def test_an_option_goes_before_the_configurations_model(config_path: str, model_path: Path) -> None:
    Path("c.yaml").write_text("model: {file: gone.safetensors}")
    config, model = resolve(config_path, model_path, {})
    assert model is not None
    assert config.threshold.kind == "sigma"
    alone, same = resolve(None, model_path, {})
    assert same is not None
    assert config_hash(alone) == config_hash(config)
    assert (alone.model.file, alone.runtime.threads) == (None, 1)


# ---- state


def keep(config_path: str, store: SnapshotStore, partition: str) -> Detector:
    """Scores three streams of a partition and keeps the state; offsets have gaps."""
    config, model = resolve(config_path, None, {})
    detector = Detector(config, model=model)
    keys = pa.array(["a", "b", "c"] * ROWS, pa.string()).slice(0, ROWS)
    time_ns = np.arange(ROWS) * MINUTE
    detector.process_events(EventBatch(keys, time_ns, wave(ROWS)[:, None], np.arange(ROWS) * 2, partition))
    snapshots = PartitionSnapshots(store, partition, Owner(0, 3), detector, "id", [])
    writer = Writer()
    for piece in snapshots.round(2 * ROWS):
        snapshots.write(piece, writer)
    assert writer.drain(20)
    assert writer.close(20)
    return detector


def test_show_and_export(config_path: str, capfd: pytest.CaptureFixture[str]) -> None:
    detector = keep(config_path, FolderStore("kept"), "plant/0")
    keep(config_path, FolderStore("kept"), "plant/11")
    assert detector.model is not None

    assert run_cli(["state", "show", "--config", config_path, "--json"]) == 0
    states = json.loads(capfd.readouterr().out)
    assert [(state["partition"], state["next_offset"], state["streams"]) for state in states] == [
        ("plant/0", 2 * ROWS, 3),
        ("plant/11", 2 * ROWS, 3),
    ]
    assert states[0]["model"] == detector.model.hash
    assert states[0]["config"] == config_hash(detector.config)
    assert states[0]["size"] > 3 * detector.layout.bytes_per_stream
    assert 0 <= states[0]["age_s"] < 60
    assert run_cli(["state", "show", "kept"]) == 0
    assert "plant/11" in capfd.readouterr().out

    export = ["state", "export", "--config", config_path, "--partition", "plant/0", "--output"]
    assert run_cli([*export, "s.parquet"]) == 0
    assert "plant/0: 3 streams" in capfd.readouterr().err
    rows = pq.read_table("s.parquet").to_pylist()
    assert [row["key"] for row in rows] == ["a", "b", "c"]
    assert [row["last_row"] for row in rows] == [2 * (ROWS - 1), 2 * (ROWS - 3), 2 * (ROWS - 2)]
    assert {row["stage"] for row in rows} == {"live"}
    assert [row["records"] for row in rows] == [134, 133, 133]
    scored = detector.process_events(
        EventBatch(pa.array(["b"]), np.array([ROWS * MINUTE]), np.zeros((1, 1)), np.array([2 * ROWS]), "plant/0")
    )
    assert rows[1]["threshold"] == pytest.approx(float(scored.threshold[0]))
    assert run_cli([*export, "s.csv"]) == 0
    assert Path("s.csv").read_text().startswith("key,stage,last_row,first_time,last_time,records,")


def test_what_cannot_be_shown_or_exported(config_path: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["state", "show", "--config", config_path]) == 1
    assert "kept: there is no folder of snapshots" in capfd.readouterr().err
    assert not Path("kept").exists()
    keep(config_path, FolderStore("kept"), "plant/0")
    export = ["state", "export", "--config", config_path, "-o", "s.csv", "--partition"]
    assert run_cli([*export, "plant/1"]) == 1
    assert "plant/1: there is no snapshot in kept; it has: plant/0" in capfd.readouterr().err
    assert run_cli([*export, "plant/0", "--set", "score.floor=0.5"]) == 1
    assert "name the configuration that `streamlstm run` was given" in capfd.readouterr().err
    assert not Path("s.csv").exists()


def test_stores_list_their_partitions(tmp_path: Path) -> None:
    stores: list[SnapshotStore] = [MemoryStore(), FolderStore(tmp_path / "kept")]
    for store in stores:
        assert store.partitions() == []
        for partition in ("t/1", "t/0", "a topic.x/10"):
            store.put(partition, "0/manifest", b"x")
        store.put("u/0", "gone", b"x")
        store.delete("u/0", ["gone"])
        store.flush(5)
        assert store.partitions() == ["a topic.x/10", "t/0", "t/1"]
        store.close()
