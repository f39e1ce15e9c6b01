"""`streamlstm demo`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from streamlstm.cli.evaluate import show_result
from streamlstm.cli.fit import show, told
from streamlstm.cli.replay import hooks
from streamlstm.cli.terminal import Bar, output
from streamlstm.service.demo import RECORDING, TRAINED, run_demo

_SHOWN = 8  # flags listed; the file holds all


def demo(
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where model, flags, episodes and report go.")
    ] = Path("streamlstm-demo"),
    kafka: Annotated[
        bool, typer.Option("--kafka", help="Send it through a real Kafka broker and the daemon too.")
    ] = False,
) -> None:
    """A real labelled recording: train, replay, judge, report."""
    output.print(
        f"{RECORDING}: CPU utilisation of a server, every five minutes for two weeks (Numenta Anomaly Benchmark).\n"
        f"Training on the first {TRAINED:.0%}; kernels are compiled at the first run.",
        markup=False,
    )
    with Bar("demo") as bar:
        result = run_demo(folder, lambda progress: show(bar, progress), hooks(bar), kafka=kafka)
    summary = result.summary
    output.print(f"trained: {told(result.model)}", markup=False, soft_wrap=True)
    for name, value in summary.lines():
        output.print(f"{name}: {value}", markup=False, soft_wrap=True)
    output.print(_table("Episodes", result.episodes, {
        "opened": "opened", "closed": "closed", "peak_severity": "peak severity", "events": "records", "cause": "cause",
    }))  # fmt: skip
    flags = sorted(result.flags, key=lambda row: -row["severity"])[:_SHOWN]
    output.print(_table(f"The {len(flags)} severest of {len(result.flags)} flags", flags, {
        "time": "time", "value.value": "value", "expected.value": "expected", "low.value": "from", "high.value": "to",
        "severity": "severity", "cause": "cause",
    }))  # fmt: skip
    assert summary.evaluation is not None
    output.print(f"Judged against the labels, on what came after the training ({1 - TRAINED:.0%}):", markup=False)
    show_result(summary.evaluation)
    if result.kafka is not None:
        sent = result.kafka
        output.print(
            f"kafka: {sent.records:,} messages through {sent.bootstrap} and the daemon in {sent.seconds:.1f} s; "
            f"{len(sent.flags)} flags read back from their topic, "
            + ("bit for bit those of the replay" if sent.equal else "NOT those of the replay: please report this"),
            markup=False, soft_wrap=True,
        )  # fmt: skip
    output.print(f"report: {result.report}    everything else: {result.folder}", markup=False, soft_wrap=True)


def _table(title: str, rows: list[dict[str, Any]], columns: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for name in columns.values():
        text = name in ("opened", "closed", "time", "cause")
        table.add_column(name, justify="left" if text else "right", no_wrap=name != "cause")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in columns))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value)
