"""`streamlstm forecast`."""

from typing import Annotated

import typer

from streamlstm.cli.options import DEAD_LETTERS, ConfigPath, DeadLetters, Inputs, ModelPath, Settings, overrides
from streamlstm.cli.replay import hooks
from streamlstm.cli.terminal import Bar, count, note
from streamlstm.service.forecasting import forecast_files


def forecast(
    inputs: Inputs,
    config: ConfigPath = None,
    model: ModelPath = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="F", help="Where it goes (.csv, .jsonl, .parquet, -).")
    ] = "-",
    dead_letters: DeadLetters = DEAD_LETTERS,
    settings: Settings = None,
) -> None:
    """Say what each stream of files is expected to show next; needs a model fitted with forecast.horizons."""
    with Bar("forecast") as bar:
        written = forecast_files(
            inputs, output, config=config, model=model, overrides=overrides(settings), dead_letters=dead_letters,
            hooks=hooks(bar),
        )  # fmt: skip
    if output != "-":
        note(f"wrote {output}: {count(written, 'stream')}")
