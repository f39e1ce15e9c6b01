"""`streamlstm evaluate`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from streamlstm.cli.options import DEAD_LETTERS, ConfigPath, DeadLetters, Inputs, ModelPath, Settings, overrides
from streamlstm.cli.replay import hooks
from streamlstm.cli.terminal import Bar, note, output
from streamlstm.errors import OutputError
from streamlstm.evaluate import Result
from streamlstm.service.opening import check_outputs
from streamlstm.service.replay import replay

_SHOWN = 30  # streams listed one by one


def evaluate(
    inputs: Inputs,
    labels: Annotated[
        str, typer.Option(metavar="L", help="CSV key,start,end; NAB's JSON of windows; or a 0/1 column of the input.")
    ],
    config: ConfigPath = None,
    model: ModelPath = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME|FRACTION", help="Count only what comes after it.")
    ] = None,
    nab: Annotated[bool, typer.Option("--nab", help="Also NAB's score of the alarms, of all labelled files.")] = False,
    json_path: Annotated[str | None, typer.Option("--json", metavar="F", help="The result for machines.")] = None,
    report: Annotated[str | None, typer.Option(metavar="R.html", help="An HTML report.")] = None,
    dead_letters: DeadLetters = DEAD_LETTERS,
    settings: Settings = None,
) -> None:
    """Score labelled records and judge flags and scores: causal, no point adjustment."""
    check_outputs([json_path, report, dead_letters], [*inputs, model, config, labels])
    with Bar("evaluate") as bar:
        summary = replay(
            inputs, config=config, model=model, overrides=overrides(settings), labels=labels, start=start,
            report=report, dead_letters=dead_letters, hooks=hooks(bar),
        )  # fmt: skip
    assert summary.evaluation is not None
    for name, value in summary.faults():
        note(f"{name}: {value}")
    nab_scores = summary.evaluation.nab_scores() if nab else {}
    if json_path != "-":
        show_result(summary.evaluation)
        for profile, score in nab_scores.items():
            output.print(f"NAB's score, {profile}: {score:.1f}", markup=False)
    if json_path is not None:
        content = summary.evaluation.as_dict() | ({"nab_scores": nab_scores} if nab else {})
        text = json.dumps(content, indent=2)
        if json_path == "-":
            print(text)
            return
        try:
            Path(json_path).write_text(text + "\n")
        except OSError as error:
            raise OutputError(f"{json_path}: cannot write: {error.strerror}; choose another place") from error
        note(f"wrote {json_path}")


def show_result(result: Result) -> None:
    """The table of streams and of all together, and what rate of false alarms was promised and kept."""
    header, *rows = result.rows()
    if len(rows) <= 2:  # one stream: the table lying down, which fits any terminal
        for name, value in zip(header, rows[0], strict=True):
            output.print(f"{name}: {value}", markup=False)
    else:
        _print_table(header, rows)
    if result.promised is not None and result.kept is not None:
        output.print(
            f"false alarms per stream and day: promised at most {result.promised:g}, kept {result.kept:.2f}; "
            f"in {result.total.days:,.1f} days outside labels promised {result.promised_alarms:,.1f}, "
            f"kept {result.total.false:,}",
            markup=False,
        )


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(box=None, header_style="bold")
    for n, name in enumerate(header):
        table.add_column(name, justify="left" if n == 0 else "right")
    listed = rows[:-1] if len(rows) <= _SHOWN + 1 else rows[:_SHOWN]
    for row in listed:
        table.add_row(*row)
    if len(listed) < len(rows) - 1:
        table.add_row(f"... {len(rows) - 1 - len(listed)} more", *[""] * (len(header) - 1))
    table.add_row(*rows[-1], style="bold")
    output.print(table)
