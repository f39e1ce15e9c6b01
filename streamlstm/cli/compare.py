"""`streamlstm compare`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from streamlstm.cli.terminal import count, note, output
from streamlstm.errors import OutputError
from streamlstm.evaluate.compare import Alert, Alerts, Scores, as_dict
from streamlstm.evaluate.compare import compare as compare_files

_SHOWN = 20  # of each kind of difference; the JSON holds all

Output = Annotated[str, typer.Argument(help="Flags, episodes or scores of a run (.csv, .jsonl, .parquet, .gz, .zst).")]


def compare(
    a: Output,
    b: Output,
    json_path: Annotated[str | None, typer.Option("--json", metavar="F", help="The result for machines.")] = None,
) -> int:
    """Compare two runs' outputs: what appeared, vanished, moved. Exit status 0: the same, 1: different."""
    found = compare_files(a, b)
    if json_path != "-":
        if isinstance(found, Alerts):
            _show_alerts(found)
        else:
            _show_scores(found)
    if json_path is not None:
        _write(json_path, json.dumps(as_dict(found), indent=2))
    return 0 if found.same else 1


def _show_alerts(found: Alerts) -> None:
    _print(
        f"{found.kind}: {found.counts[0]:,} in A, {found.counts[1]:,} in B; {found.equal:,} equal, "
        f"{len(found.appeared):,} appeared, {len(found.vanished):,} vanished, {len(found.moved):,} moved, "
        f"{len(found.changed):,} changed"
    )
    if any(found.repeats):
        _print(f"ids that came again, counted once: {found.repeats[0]:,} in A, {found.repeats[1]:,} in B")
    differences: dict[str, list[tuple[Alert, Alert]]] = {
        "appeared": [(alert, alert) for alert in found.appeared],
        "vanished": [(alert, alert) for alert in found.vanished],
        "moved": found.moved,
        "changed": found.changed,
    }
    for name, pairs in differences.items():
        if pairs:
            table = Table(title=name, title_justify="left", box=None, header_style="bold")
            for head in ("stream", "id", "from", "to"):
                table.add_column(head, overflow="fold")
            table.add_column("severity", justify="right")
            for one, other in pairs[:_SHOWN]:
                cells = (
                    one.key, _both(one.id, other.id), _both(one.begin, other.begin), _both(one.end, other.end),
                    _both(f"{one.severity:.4g}", f"{other.severity:.4g}"),
                )  # fmt: skip
                table.add_row(*map(Text, cells))
            output.print(table)
            _rest(len(pairs))


def _show_scores(found: Scores) -> None:
    _print(f"scores: {count(found.counts[0], 'row')} in A, {count(found.counts[1], 'row')} in B; {found.rows:,} differ")
    if any(found.missing):
        _print(f"rows that the other does not have: {found.missing[0]:,} of A, {found.missing[1]:,} of B")
    for column in found.columns:
        largest = "" if column.largest is None else f", by {column.largest:.4g} at most"
        _print(f"{column.name}: {count(column.rows, 'row')}{largest}")
    if found.streams:
        table = Table(title="first difference", title_justify="left", box=None, header_style="bold")
        for head in ("stream", "row", "time", "columns"):
            table.add_column(head, justify="right" if head == "row" else "left", overflow="fold")
        for first in found.streams[:_SHOWN]:
            table.add_row(*map(Text, (first.key, str(first.row), first.time, ", ".join(first.columns))))
        output.print(table)
        _rest(len(found.streams))


def _both(one: str, other: str) -> str:
    return one if one == other else f"{one} -> {other}"


def _rest(total: int) -> None:
    if total > _SHOWN:
        _print(f"and {total - _SHOWN:,} more; --json has all")


def _print(text: str) -> None:
    output.print(text, markup=False, soft_wrap=True)


def _write(path: str, text: str) -> None:
    if path == "-":
        print(text)
        return
    try:
        Path(path).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot write: {error.strerror}; choose another place") from error
    note(f"wrote {path}")
