"""One HTML file that shows a run: what was found, how good it is, and every stream's course. It loads nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from importlib.resources import files
from math import isnan
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from streamlstm.errors import OutputError
from streamlstm.evaluate import Result, Windows
from streamlstm.report.embed import embed_stream, known_peak, script_json, span
from streamlstm.report.quality import quality_section
from streamlstm.report.series import SeriesCollector, StreamSummary
from streamlstm.report.training import training_section
from streamlstm.types import NO_TIME, Episode, Int64

MAX_BYTES = 10_000_000
"""Above this a report is made again with fewer streams and episodes."""

_LISTED_STREAMS = 2000
_LISTED_EPISODES = 2000
_LONGEST_TEXT = 120  # characters of a key or cause
_LONGEST_CONFIG = 200_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEGEND = (
    ("value", '<path d="M0 8 L7 4 L14 9 L24 3" fill="none" stroke="var(--value)" stroke-width="1.6"/>'),
    ("expected", '<path d="M0 6 H24" stroke="var(--expected)" stroke-width="1.6" stroke-dasharray="4 2"/>'),
    ("expected band", '<rect width="24" height="12" fill="var(--band)"/>'),
    ("score", '<path d="M0 10 L10 8 L15 2 L24 9" fill="none" stroke="var(--score)" stroke-width="1.6"/>'),
    ("threshold", '<path d="M0 6 H24" stroke="var(--text)" stroke-width="1.4" stroke-dasharray="6 3"/>'),
    ("flagged record", '<circle cx="12" cy="6" r="4" fill="none" stroke="var(--flag)" stroke-width="1.6"/>'),
    ("episode", '<rect x=".5" y=".5" width="23" height="11" fill="var(--episode)" stroke="var(--episode-edge)"/>'),
)
_LEGEND_LABEL = (
    "labelled as anomalous",
    '<rect width="24" height="12" fill="var(--label)"/><rect width="24" height="4" fill="var(--label-edge)"/>',
)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a report is made of, the streams worst first with their episodes."""

    title: str
    features: tuple[str, ...]
    streams: list[StreamSummary]
    episodes: dict[str, list[Episode]]
    stages: Mapping[str, str]
    summary: Mapping[str, str]
    config_yaml: str
    versions: Mapping[str, str]
    labels: Windows | None
    evaluation: Result | None
    training: Mapping[str, Any]


def write_report(
    path: str,
    *,
    title: str,
    collector: SeriesCollector,
    episodes: Sequence[Episode],
    summary: Mapping[str, str],
    config_yaml: str,
    versions: Mapping[str, str],
    labels: Windows | None = None,
    evaluation: Result | None = None,
    stages: Mapping[str, str] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Writes a self-contained report, below 10 MB, to `path`.

    `summary` and `versions` are shown as they are, in their order. `stages` tells, for streams that need another word
    than the stage of their last record, what to show instead; `training` is the summary in a model.
    """
    by_key: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_key.setdefault(episode.key, []).append(episode)

    def badness(stream: StreamSummary) -> tuple[float, int, int, int]:
        peak = -1.0 if isnan(stream.peak) else stream.peak
        return -peak, -len(by_key.get(stream.key, ())), -stream.flags, -stream.stage

    contents = _Contents(
        title=title,
        features=collector.features,
        streams=sorted(collector.streams(), key=badness),
        episodes=by_key,
        stages=stages or {},
        summary=summary,
        config_yaml=config_yaml,
        versions=versions,
        labels=labels,
        evaluation=evaluation,
        training=training or {},
    )
    listed = 1.0
    while len(page := _page(contents, listed).encode("utf-8", "replace")) > MAX_BYTES and listed > 1e-3:
        listed /= 2  # only keys of hundreds of wide characters come here
    try:
        Path(path).write_bytes(page)
    except OSError as problem:
        raise OutputError(
            f"report: cannot write {path}: {problem.strerror}; choose a file in a folder that exists and can be written"
        ) from problem


def _page(contents: _Contents, listed: float) -> str:
    """The whole page with that share of the streams and episodes that it would list at most."""
    streams = contents.streams[: max(int(_LISTED_STREAMS * listed), 1)]
    drawn = [s for s in streams if s.series is not None and s.series.buckets is not None]
    drawn = drawn[: max(int(len(drawn) * listed), 1)]
    position = {stream.key: i for i, stream in enumerate(drawn)}
    data = [
        embed_stream(
            stream,
            tuple(_short(name) for name in contents.features),
            contents.episodes.get(stream.key, []),
            _windows(contents.labels, stream.key),
            _caption(contents, stream),
        )
        | {"key": _short(stream.key)}
        for stream in drawn
    ]
    sections = [
        quality_section(contents.evaluation) if contents.evaluation is not None else "",
        _streams_section(contents, streams, position),
        _episodes_section(contents, {s.key: s.timed for s in contents.streams}, position, listed),
        training_section(contents.training),
        _details(contents),
    ]
    here = files("streamlstm.report")
    return Template(here.joinpath("page.html").read_text("utf-8")).substitute(
        title=escape(contents.title),
        css=here.joinpath("page.css").read_text("utf-8"),
        summary=_facts(contents.summary),
        sections="\n".join(section for section in sections if section),
        data=script_json({"streams": data}),
        plotly=get_plotlyjs(),
        js=here.joinpath("page.js").read_text("utf-8"),
    )


def _facts(summary: Mapping[str, str]) -> str:
    def fact(name: str, value: str) -> str:
        wide = ' class="wide"' if len(value) > 22 else ""
        return f"<div{wide}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"

    return f'<dl class="facts">{"".join(fact(name, value) for name, value in summary.items())}</dl>' if summary else ""


def _streams_section(contents: _Contents, streams: Sequence[StreamSummary], position: Mapping[str, int]) -> str:
    many = len(contents.streams) > 1
    legend = (*_LEGEND, _LEGEND_LABEL) if contents.labels is not None else _LEGEND
    keys = "".join(
        f'<li><svg viewBox="0 0 24 12" aria-hidden="true">{image}</svg>{name}</li>' for name, image in legend
    )
    charts = f'<div class="charts"><ul class="legend">{keys}</ul><div id="charts"></div></div>'
    if not many:
        return f'<section>\n<h2>Stream</h2>\n<div class="work">{charts}</div>\n</section>'
    notes = [
        "Worst first: by peak severity, the largest score as a multiple of its threshold. Choose a stream to draw it."
    ]
    if len(streams) < len(contents.streams):
        notes.append(f"The {len(streams):,} worst of {len(contents.streams):,} are listed.")
    if len(position) < len(streams):
        notes.append(f"The course of {len(position):,} of them was kept.")
    rows = "\n".join(_stream_row(contents, stream, position.get(stream.key)) for stream in streams)
    return f"""<section>
<h2>Streams</h2>
<p class="note">{" ".join(notes)}</p>
<div class="work many">
<div class="list"><input type="search" id="filter" placeholder="Filter streams" aria-label="Filter streams by name">
<div class="card scroll"><table><thead><tr><th>stream</th><th class="number">peak</th><th class="number">episodes</th>
<th class="number minor">flags</th><th>stage</th></tr></thead><tbody>
{rows}
</tbody></table></div></div>
{charts}
</div>
</section>"""


def _stream_row(contents: _Contents, stream: StreamSummary, place: int | None) -> str:
    key = escape(_short(stream.key))
    begin, name = (f'<tr class="pick" data-stream="{place}">', f'<button type="button">{key}</button>')
    if place is None:
        begin, name = "<tr>", key
    return (
        f'{begin}<td class="name">{name}</td><td class="number">{_severity(stream.peak)}</td>'
        f'<td class="number">{len(contents.episodes.get(stream.key, ())):,}</td>'
        f'<td class="number minor">{stream.flags:,}</td><td>{escape(_stage(contents, stream))}</td></tr>'
    )


def _episodes_section(
    contents: _Contents, timed: Mapping[str, bool], position: Mapping[str, int], listed: float
) -> str:
    every = [episode for episodes in contents.episodes.values() for episode in episodes]
    if not every:
        return '<section>\n<h2>Episodes</h2>\n<p class="note">There was no episode.</p>\n</section>'
    worst = sorted(every, key=lambda e: (-known_peak(e), e.opened, e.first))
    worst = worst[: max(int(_LISTED_EPISODES * listed), 1)]
    note = "Largest peak severity first. Choose one to see it in its stream."
    if len(worst) < len(every):
        note += f" The {len(worst):,} worst of {len(every):,} are listed."
    rows = "\n".join(_episode_row(e, timed.get(e.key, False), position.get(e.key)) for e in worst)
    return f"""<section>
<h2>Episodes</h2>
<p class="note">{note}</p>
<div class="card scroll"><table><thead><tr><th>stream</th><th>opened</th><th class="minor">last anomalous record</th>
<th class="number">peak severity</th><th class="number minor">records</th><th>cause</th></tr></thead><tbody>
{rows}
</tbody></table></div>
</section>"""


def _episode_row(episode: Episode, timed: bool, place: int | None) -> str:
    key = escape(_short(episode.key))
    begin, name = "<tr>", key
    if place is not None:
        first, last = span(episode, timed)
        begin = f'<tr class="pick" data-stream="{place}" data-from="{first:.3f}" data-to="{last:.3f}">'
        name = f'<button type="button">{key}</button>'
    still = " (still open)" if episode.state == "open" else ""
    return (
        f'{begin}<td class="name">{name}</td><td class="time">{_time(episode.opened, episode.first)}</td>'
        f'<td class="time minor">{_time(episode.closed, episode.last)}{still}</td>'
        f'<td class="number">{_severity(episode.peak_severity)}</td><td class="number minor">{episode.events:,}</td>'
        f'<td class="cause">{escape(_short(episode.cause))}</td></tr>'
    )


def _details(contents: _Contents) -> str:
    config = contents.config_yaml
    versions = "\n".join(f"{name}: {version}" for name, version in contents.versions.items())
    if len(config) > _LONGEST_CONFIG:
        config = config[:_LONGEST_CONFIG] + f"\n# ... cut here, {len(config):,} characters in all"
    return (
        "<section>\n<h2>How it was made</h2>\n"
        f'<details class="card"><summary>Configuration</summary><pre>{escape(config)}</pre></details>\n'
        f'<details class="card"><summary>Versions</summary><pre>{escape(versions)}</pre></details>\n</section>'
    )


def _caption(contents: _Contents, stream: StreamSummary) -> str:
    episodes = len(contents.episodes.get(stream.key, ()))
    parts = [_stage(contents, stream), _count(stream.records, "record"), _count(episodes, "episode")]
    parts.append(_count(stream.flags, "flag"))
    if not isnan(stream.peak):
        parts.append(f"peak severity {_severity(stream.peak)}")
    return " · ".join(parts)


def _stage(contents: _Contents, stream: StreamSummary) -> str:
    return contents.stages.get(stream.key, stream.stage.name.lower())


def _windows(labels: Windows | None, key: str) -> Int64:
    return labels.for_key(key) if labels is not None else np.empty((0, 2), np.int64)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _severity(value: float) -> str:
    if isnan(value):
        return "-"
    return f"{value:.2f}" if value < 1000 else f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"


def _time(ns: int, record: int) -> str:
    """A time as UTC to the second, or the record's number where there is no time."""
    if ns == NO_TIME:
        return f"record {record:,}"
    return f"{_EPOCH + timedelta(seconds=ns // 10**9):%Y-%m-%d %H:%M:%S}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
