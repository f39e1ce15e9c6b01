"""`streamlstm state show | export`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from streamlstm.cli.options import ConfigPath, Settings, overrides
from streamlstm.cli.terminal import note, output
from streamlstm.service.states import export_state, list_states

app = typer.Typer(no_args_is_help=True, help="Look into the state that `streamlstm run` keeps.")


@app.command()
def show(
    snapshots: Annotated[
        str | None, typer.Argument(metavar="[SNAPSHOTS]", help="A folder or kafka:TOPIC; none: the configuration's.")
    ] = None,
    config: ConfigPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    settings: Settings = None,
) -> None:
    """List the partitions, how far each is, and what it belongs to."""
    states = list_states(config, snapshots, overrides(settings))
    if as_json:
        print(json.dumps([asdict(state) for state in states], indent=2))
        return
    table = Table(box=None, header_style="bold")
    for name in ("partition", "next offset", "streams", "size", "age", "model", "configuration"):
        numeric = name in ("next offset", "streams", "size", "age")
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for state in states:
        table.add_row(
            state.partition, f"{state.next_offset:,}", f"{state.streams:,}", f"{state.size / 1e6:,.1f} MB",
            f"{state.age_s:,.0f} s", state.model, state.config,
        )  # fmt: skip
    output.print(table)


@app.command()
def export(
    partition: Annotated[str, typer.Option(metavar="TOPIC/N", help="Whose state.")],
    path: Annotated[str, typer.Option("--output", "-o", metavar="F", help="Where to (.csv, .jsonl, .parquet, -).")],
    config: ConfigPath = None,
    settings: Settings = None,
) -> None:
    """Write one row per stream: its last record, counters, stage, score and threshold."""
    count = export_state(config, partition, path, overrides(settings))
    note(f"{partition}: {count:,} streams")
