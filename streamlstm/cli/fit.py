"""`streamlstm fit`."""

from typing import Annotated

import typer

from streamlstm.cli.options import DEAD_LETTERS, ConfigPath, DeadLetters, Inputs, Settings, overrides
from streamlstm.cli.terminal import Bar, count, note, output
from streamlstm.learn.bptt import Progress
from streamlstm.model.network import Model
from streamlstm.service.training import fit_files


def fit(
    inputs: Inputs,
    model: Annotated[str, typer.Option("--model", "-m", metavar="OUT.safetensors", help="Where the model goes.")],
    config: ConfigPath = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME|FRACTION", help="Train up to this time, or this share of each stream.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="A 0/1 column of labels, which is no feature.")
    ] = None,
    log: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write each update as a JSON line: losses, step size, speed.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Keep an interrupted training there, and go on from it; gone when it is done."
        ),
    ] = None,
    dead_letters: DeadLetters = DEAD_LETTERS,
    settings: Settings = None,
) -> None:
    """Train a model on the records of files."""
    with Bar("training") as bar:
        fitted = fit_files(
            inputs, model, config=config, overrides=overrides(settings), until=until, label=labels,
            dead_letters=dead_letters, log=log, checkpoint=checkpoint, on_note=note,
            on_progress=lambda progress: show(bar, progress),
        )  # fmt: skip
    output.print(f"{model}: {told(fitted)}", markup=False, soft_wrap=True)


def show(bar: Bar, progress: Progress) -> None:
    """One update of a training."""
    held = "" if progress.held_out != progress.held_out else f", held out {progress.held_out:.4f}"
    facts = f"loss {progress.loss:.4f}{held}, {progress.rows_per_second:,.0f} rows/s"
    bar.show(progress.update, progress.updates, facts)


def told(model: Model) -> str:
    """What a training came to, in a line."""
    t = model.training
    skip, best = t["held_out_loss_of_skip"], t["held_out_loss"]
    gain = f"; held-out loss {best:.4f}, of the linear skip alone {skip:.4f}" if best is not None and skip else ""
    short = f" ({t['streams_too_short']} too short)" if t["streams_too_short"] else ""
    return (
        f"{count(t['rows'], 'record')} of {count(t['streams'], 'stream')}{short}, "
        f"{count(len(model.features), 'feature')}, "
        f"{count(t['updates'], 'update')} in {t['seconds']:.1f} s, best after {t['best_update']}{gain}"
    )
