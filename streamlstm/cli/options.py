"""Arguments that several commands share."""

from typing import Annotated, Any

import typer

from streamlstm.config import parse_setting

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUT...", help="Files, folders or patterns (CSV, JSON lines, Parquet, .gz, .zst), or -."),
]
ConfigPath = Annotated[str | None, typer.Option("--config", "-c", metavar="C", help="A YAML file or a preset's name.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. threshold.kind=sigma.")
]
ModelPath = Annotated[str | None, typer.Option("--model", "-m", metavar="M", help="A model file of `streamlstm fit`.")]
DeadLetters = Annotated[
    str, typer.Option("--dead-letters", metavar="F", help="Where records go that cannot be read, with the reason.")
]
DEAD_LETTERS = "dead-letters.jsonl"


def overrides(settings: list[str] | None) -> dict[str, Any]:
    """The `--set` options as dotted keys and values."""
    return dict(parse_setting(text) for text in settings or [])
