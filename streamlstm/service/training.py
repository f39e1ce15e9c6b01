"""`fit` from files: the records of each stream, up to where training ends, and the model file."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamlstm.config import Config, load
from streamlstm.detect.reorder import reordered
from streamlstm.errors import InputError, UsageError
from streamlstm.evaluate import parse_start
from streamlstm.learn.bptt import Progress
from streamlstm.learn.fit import Recording, fit
from streamlstm.model.files import save_model
from streamlstm.model.network import Model
from streamlstm.service.opening import check_outputs, config_path, open_source
from streamlstm.sinks import DeadLetterFile
from streamlstm.sinks.failures import named
from streamlstm.sources.ranges import TopicRange
from streamlstm.state.keys import KeyTable
from streamlstm.types import NO_TIME, EventBatch


def fit_files(
    inputs: Sequence[str],
    model: str | Path,
    *,
    config: str | Path | Config | None = None,
    overrides: Mapping[str, Any] | None = None,
    until: str | None = None,
    label: str | None = None,
    dead_letters: str = "dead-letters.jsonl",
    log: str | None = None,
    checkpoint: str | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Model:
    """Fits a model on `inputs`, up to the time or the fraction of each stream `until`, and writes it to `model`.

    `label` names a 0/1 column that is no feature; `log` a file that gets each update of the training as a JSON line,
    `checkpoint` one where an interrupted training is kept, from which the next one goes on.
    """
    settings = load(config, overrides=overrides or {})
    end = None if until is None else 1.0 if until in ("1", "1.0") else parse_start(until, "--until")
    letters = DeadLetterFile(dead_letters)
    try:
        source = open_source(inputs, settings, None, label=label, on_dead_letter=letters, on_note=on_note)
        check_outputs([model, dead_letters, log, checkpoint], [*source.paths, config_path(config)])
        recordings = read_recordings(reordered(source, settings, apart=isinstance(source, TopicRange)), end)
        if settings.time.late == "reorder":
            recordings = {key: _in_order(recording) for key, recording in recordings.items()}
    finally:
        letters.close()
    if letters.count:
        on_note(f"{letters.count:,} records could not be read; the reasons are in {dead_letters}")
    columns = source.columns
    columns_read = {
        "time": columns.time,
        "key": columns.key,
        "features": columns.features,
        "exogenous": columns.exogenous,
    }
    settings = settings.model_copy(update={"input": settings.input.model_copy(update=columns_read)})
    with training_log(log) as write:

        def tell(progress: Progress) -> None:
            write(progress)
            if on_progress is not None:
                on_progress(progress)

        fitted = fit(recordings, settings, columns.features, columns.exogenous, tell, checkpoint)
    if stopped := fitted.training.get("stopped"):
        on_note(f"stopped early, with the weights of update {fitted.training['best_update']:,}: {stopped}")
    save_model(fitted, model)
    return fitted


@contextmanager
def training_log(path: str | None) -> Iterator[Callable[[Progress], None]]:
    """Writes each update to a file of JSON lines, so that it can be followed; what is not finite is null.

    Without a path nothing."""
    if path is None:
        yield lambda progress: None
        return
    with named(path):
        file = Path(path).open("w", encoding="utf-8")  # noqa: SIM115, closed below
    with file:

        def write(progress: Progress) -> None:
            facts = {name: value if math.isfinite(value) else None for name, value in asdict(progress).items()}
            with named(path):
                file.write(json.dumps(facts) + "\n")
                file.flush()

        yield write


def _in_order(recording: Recording) -> Recording:
    """Without the records that came too late to be put in order: in use they are dropped, too."""
    latest = np.maximum.accumulate(recording.time)
    kept = (recording.time == NO_TIME) | (recording.time == latest)
    return Recording(recording.time[kept], recording.x[kept])


def read_recordings(source: Iterable[EventBatch], end: int | float | None) -> dict[str, Recording]:
    """All records of a source by stream, in memory; up to a time (ns) or a fraction of each stream."""
    if isinstance(end, float) and not 0 < end <= 1:
        raise UsageError(f"--until: a fraction must be above 0 and at most 1, got {end}")
    keys = KeyTable()
    slots, times, values = [], [], []
    for batch in source:
        slots.append(keys.slots_of(batch.keys))
        times.append(batch.time)
        values.append(batch.x)
    if not slots:
        raise InputError("fit: no record could be read; the reasons are among the dead letters")
    slot, time, x = np.concatenate(slots), np.concatenate(times), np.concatenate(values)
    if isinstance(end, int):
        early = time < end
        slot, time, x = slot[early], time[early], x[early]
    order = np.argsort(slot, kind="stable")
    bounds = np.searchsorted(slot[order], np.arange(keys.count + 1))
    names: pa.Array = keys.strings()
    recordings = {}
    for n in range(keys.count):
        rows = order[bounds[n] : bounds[n + 1]]
        if isinstance(end, float):
            rows = rows[: round(len(rows) * end)]
        recordings[names[n].as_py()] = Recording(time[rows], np.ascontiguousarray(x[rows]))
    return recordings
