"""`streamlstm replay`."""

import time
from typing import Annotated

import typer

from streamlstm.cli.options import DEAD_LETTERS, ConfigPath, DeadLetters, Inputs, ModelPath, Settings, overrides
from streamlstm.cli.terminal import Bar, note, output
from streamlstm.service.replay import Hooks, Summary
from streamlstm.service.replay import replay as run_replay


def replay(
    inputs: Inputs,
    config: ConfigPath = None,
    model: ModelPath = None,
    flags: Annotated[
        str | None, typer.Option(metavar="F", help="Anomalous records (.csv, .jsonl, .parquet, -).")
    ] = None,
    scores: Annotated[str | None, typer.Option(metavar="F", help="The score of every record.")] = None,
    scores_detail: Annotated[
        bool, typer.Option("--scores-detail", help="With expected value, band and attribution per feature.")
    ] = False,
    episodes: Annotated[str | None, typer.Option(metavar="F", help="Alarms, one row each.")] = None,
    report: Annotated[str | None, typer.Option(metavar="R.html", help="An HTML report.")] = None,
    pace: Annotated[
        float | None, typer.Option(metavar="X", min=1e-6, help="Replay X times as fast as event time passes.")
    ] = None,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, max=256, help="Processes that share the streams; needs a model.")
    ] = 1,
    dead_letters: DeadLetters = DEAD_LETTERS,
    settings: Settings = None,
) -> None:
    """Score the records of files; without a model the detector learns as it goes."""
    with Bar("replay") as bar:
        summary = run_replay(
            inputs, config=config, model=model, overrides=overrides(settings), flags=flags, scores=scores,
            scores_detail=scores_detail, episodes=episodes, report=report, dead_letters=dead_letters, pace=pace,
            workers=workers,
            hooks=hooks(bar),
        )  # fmt: skip
    show(summary, [path for path in (flags, scores, episodes, report) if path and path != "-"],
         quiet="-" in (flags, scores, episodes))  # fmt: skip


def hooks(bar: Bar) -> Hooks:
    """Notes as lines, progress as a bar over the bytes of the files, with the rate since the first batch."""
    began = time.monotonic()

    def show_progress(records: int, read: int, size: int) -> None:
        rate = records / max(time.monotonic() - began, 1e-9)
        bar.show(read, size, f"{records:,} records, {rate:,.0f}/s")

    return Hooks(note, show_progress)


def show(summary: Summary, written: list[str], *, quiet: bool) -> None:
    """The summary; on standard error where standard output holds data."""
    for name, value in summary.lines():
        if quiet:
            note(f"{name}: {value}")
        else:
            output.print(f"{name}: {value}", markup=False, soft_wrap=True)
    for path in written:
        note(f"wrote {path}")
