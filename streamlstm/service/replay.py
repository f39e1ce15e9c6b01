"""The loop over files: read, detect, write; as fast as it goes, or paced by event time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from streamlstm.config import Config, to_yaml
from streamlstm.detect.chunks import NO_MODEL
from streamlstm.detect.reorder import reordered
from streamlstm.errors import InputError, UsageError
from streamlstm.evaluate import Evaluation, Result, Windows, is_column, load_windows, parse_start, promised_rate
from streamlstm.report import write_report
from streamlstm.service.crew import Crew, Scorer
from streamlstm.service.opening import check_outputs, config_path, make_detector, open_source, resolve
from streamlstm.service.outlets import Outlets, Wanted
from streamlstm.service.partitioned import Partitioned
from streamlstm.sinks import DeadLetterFile
from streamlstm.sources import Source
from streamlstm.sources.ranges import TopicRange
from streamlstm.types import NO_TIME, EventBatch, Float64
from streamlstm.version import versions

_SLICE_S = 0.05  # a paced replay wakes up this often


@dataclass(frozen=True, slots=True)
class Summary:
    """What a replay did; times are nanoseconds since 1970 UTC, None without times."""

    records: int
    streams: int
    flags: int
    episodes: int
    dead_letters: int
    infinities: int
    backward: int
    repeated: int
    dropped: int
    stages: Mapping[str, int]
    first_time: int | None
    last_time: int | None
    seconds: float
    possible_rates: Float64
    evaluation: Result | None = None

    def lines(self) -> list[tuple[str, str]]:
        """The summary as readable pairs; what did not happen is left out."""
        rate = self.records / self.seconds if self.seconds > 0 else 0.0
        pairs = [
            ("records", f"{self.records:,}"),
            ("streams", ", ".join([f"{self.streams:,}"] + [f"{n:,} {name}" for name, n in self.stages.items() if n])),
            ("flags", f"{self.flags:,}"),
            ("episodes", f"{self.episodes:,}"),
            ("time", f"{self.seconds:.2f} s, {rate:,.0f} records/s"),
        ]
        if self.first_time is not None and self.last_time is not None:
            pairs.insert(1, ("from", f"{_iso(self.first_time)} to {_iso(self.last_time)}"))
        count = len(self.possible_rates)
        if count:
            kept = f"{count:,}; they can keep {np.median(self.possible_rates):.2g} alarms a day"
            pairs.append(("streams too quiet or too rare for the wished rate", kept))
        return pairs + self.faults()

    def faults(self) -> list[tuple[str, str]]:
        """What was wrong with the records, where anything was."""
        counts = {
            "dead letters": self.dead_letters,
            "infinite values, read as missing": self.infinities,
            "records older than one before": self.backward,
            "records with the time of the one before": self.repeated,
            "records dropped for their time": self.dropped,
        }
        return [(name, f"{count:,}") for name, count in counts.items() if count]


def _iso(time_ns: int) -> str:
    return str(np.datetime64(time_ns, "ns").astype("datetime64[s]")).replace("T", " ") + " UTC"


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a face wants to hear: notes for people, and progress (records, bytes read, bytes in all)."""

    on_note: Callable[[str], None] = lambda note: None
    on_progress: Callable[[int, int, int], None] = lambda records, read, size: None


def replay(
    inputs: Sequence[str],
    *,
    config: str | Path | Config | None = None,
    model: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    flags: str | None = None,
    scores: str | None = None,
    scores_detail: bool = False,
    episodes: str | None = None,
    report: str | None = None,
    dead_letters: str = "dead-letters.jsonl",
    labels: str | None = None,
    start: str | None = None,
    pace: float | None = None,
    workers: int = 1,
    hooks: Hooks | None = None,
) -> Summary:
    """Scores all records of `inputs` and writes what is asked for; with `labels` also judges the result from `start` on.

    Raises the errors of `streamlstm.errors`; whatever ends the run, what was written until then is whole.
    """
    hooks = hooks or Hooks()
    settings, found = resolve(config, model, overrides or {})
    begin = parse_start(start, "--from") if start is not None else None
    if report == "-":
        raise UsageError("--report: is a file, not standard output; name one")
    windows = load_windows(labels) if labels is not None and not is_column(labels) else None
    letters = DeadLetterFile(dead_letters)
    label = labels if labels is not None and windows is None else None
    try:
        source = open_source(inputs, settings, found, label=label, on_dead_letter=letters, on_note=hooks.on_note)
        check_outputs(
            [flags, scores, episodes, report, dead_letters],
            [*source.paths, model, config_path(config), None if label else labels],
        )
        columns = source.columns
        evaluation = None
        if labels is not None:
            promised = promised_rate(settings.threshold)
            evaluation = Evaluation(windows, begin, promised)
        wanted = Wanted(flags, scores, scores_detail, episodes, report)
        with ExitStack() as stack:
            scorer: Scorer
            if workers > 1:
                scorer = stack.enter_context(Crew(workers, settings, found, columns.features, columns.exogenous))
            else:
                make = partial(make_detector, settings, found, columns.features, columns.exogenous)
                scorer = Partitioned(make) if isinstance(source, TopicRange) else make()
            outlets = stack.enter_context(Outlets(wanted, scorer, evaluation))
            records, first, last, seconds = run(source, scorer, outlets, hooks, pace)
            faults, possible = scorer.time_faults(), scorer.possible_rates()
            stages, keys = scorer.stages(), scorer.keys()
    finally:
        letters.close()
    if records == 0:
        raise InputError(f"{', '.join(inputs)}: no record could be read; the reasons are in {dead_letters}")
    result = evaluation.result() if evaluation is not None else None
    if labels is not None and windows is not None and result is not None:
        _check_labels(labels, windows, [quality.key for quality in result.streams], hooks)
    summary = Summary(
        records, len(keys), outlets.flags, outlets.episodes, letters.count, source.infinities,
        *faults, stages, first, last, seconds, possible, result,
    )  # fmt: skip
    if report is not None and outlets.collector is not None:
        write_report(
            report,
            title=f"streamlstm replay of {', '.join(Path(name).name or name for name in inputs)}",
            collector=outlets.collector,
            episodes=outlets.kept,
            summary=dict(summary.lines()) | {"threshold": settings.threshold.kind},
            config_yaml=to_yaml(settings),
            versions=versions() | {"model": found.hash if found else NO_MODEL},
            labels=windows,
            evaluation=result,
            training=found.training if found else None,
        )
    return summary


def run(
    source: Source, scorer: Scorer, outlets: Outlets, hooks: Hooks, pace: float | None
) -> tuple[int, int | None, int | None, float]:
    """Scores and writes all batches: records, first and last time, seconds."""
    began, records = time.perf_counter(), 0
    first: int | None = None
    last: int | None = None

    def arriving() -> Iterator[EventBatch]:
        nonlocal first, last, records
        for whole in source:
            for batch in paced(whole, pace, began, first):
                yield batch
                timed = batch.time[batch.time != NO_TIME]
                if len(timed):
                    low, high = int(timed.min()), int(timed.max())
                    first, last = min(low, low if first is None else first), max(high, high if last is None else last)
                records += len(batch)
                hooks.on_progress(records, *source.progress())

    for batch in reordered(arriving(), scorer.config, apart=isinstance(source, TopicRange)):
        outlets.write(batch, scorer.score_events(batch, detail=outlets.detail))
    return records, first, last, time.perf_counter() - began


def paced(batch: EventBatch, pace: float | None, began: float, first: int | None) -> Iterator[EventBatch]:
    """The batch whole, or in slices that become due `pace` times as fast as their event times pass since `first`."""
    if pace is None:
        yield batch
        return
    if (batch.time == NO_TIME).any():
        raise UsageError("--pace: needs a time in every record; leave it out for data without times")
    origin = int(batch.time[0]) if first is None else first
    due = np.maximum.accumulate((batch.time - origin) / 1e9 / pace)
    done = 0
    while done < len(batch):
        ready = int(np.searchsorted(due, time.perf_counter() - began, "right"))
        if ready > done:
            yield batch.part(done, ready)
            done = ready
        else:
            time.sleep(_SLICE_S)


def _check_labels(path: str, windows: Windows, streams: Sequence[str], hooks: Hooks) -> None:
    """Notes the labels' keys that no stream has; InputError if that is all of them."""
    unused = windows.unused(streams)
    if not unused:
        return
    if len(unused) == len(windows.keys):
        raise InputError(f"{path}: no key is a stream of this data; keys: {_some(unused)}; streams: {_some(streams)}")
    hooks.on_note(f"{path}: no stream in this data has these keys: {_some(unused)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
