"""The demo: a real recording through fit, replay and judgement, into a folder."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pyarrow.csv as pa_csv

from streamlstm.errors import OutputError
from streamlstm.learn.bptt import Progress
from streamlstm.model.network import Model
from streamlstm.service.kafka_demo import KafkaDemo, run_kafka_demo
from streamlstm.service.replay import Hooks, Summary, replay
from streamlstm.service.training import fit_files

RECORDING = "ec2_cpu_utilization_53ea38.csv"
TRAINED = 0.35
"""Share of the recording that the LSTM is trained on; both labelled windows lie behind it."""


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo did: the model, the replay's summary, flags and episodes as rows, and the files it wrote."""

    model: Model
    summary: Summary
    flags: list[dict[str, Any]]
    episodes: list[dict[str, Any]]
    report: Path
    folder: Path
    kafka: KafkaDemo | None


def run_demo(
    folder: Path,
    on_progress: Callable[[Progress], None] | None = None,
    hooks: Hooks | None = None,
    *,
    kafka: bool = False,
) -> Demo:
    """Fits on the first part of the shipped recording, replays all of it, judges what came after the training.

    With `kafka` the recording also goes through a broker and the daemon.
    """
    hooks = hooks or Hooks()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot create the folder: {error.strerror}; choose another with --output"
        ) from error
    model_path, report = folder / "model.safetensors", folder / "report.html"
    flags, episodes = folder / "flags.csv", folder / "episodes.csv"
    with as_file(files("streamlstm") / "recordings") as recordings:
        recording, labels = str(recordings / RECORDING), str(recordings / "labels.csv")
        model = fit_files(
            [recording], model_path, config="univariate", until=str(TRAINED),
            dead_letters=str(folder / "dead-letters.jsonl"), on_progress=on_progress,
        )  # fmt: skip
        summary = replay(
            [recording], model=model_path, labels=labels, start=str(TRAINED), flags=str(flags),
            episodes=str(episodes), report=str(report), dead_letters=str(folder / "dead-letters.jsonl"), hooks=hooks,
        )  # fmt: skip
        sent = run_kafka_demo(folder, recording, model_path, flags, hooks.on_note) if kafka else None
    rows = [pa_csv.read_csv(path).to_pylist() for path in (flags, episodes)]
    return Demo(model, summary, rows[0], rows[1], report, folder, sent)
