"""From a command's arguments to a source, a model and a configuration that fit each other."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from streamlstm.config import Config, load
from streamlstm.model.files import load_model
from streamlstm.model.network import Model
from streamlstm.sources import FileSource, open_files
from streamlstm.types import DeadLetter


def resolve(
    config: str | Path | Config | None, model: str | Path | None, overrides: Mapping[str, Any]
) -> tuple[Config, Model | None]:
    """Configuration and model; without `config` the model's own, without both the defaults."""
    found = load_model(model) if model is not None else None
    if config is None and found is not None:
        # The fit's configuration as a mapping, so that the environment still has its say over it.
        return load(found.config.model_dump(), overrides=overrides), found
    return load(config, overrides=overrides), found


def open_source(
    inputs: Sequence[str],
    config: Config,
    model: Model | None,
    *,
    label: str | None,
    on_dead_letter: Callable[[DeadLetter], None],
    on_note: Callable[[str], None],
) -> FileSource:
    """The records of `inputs` with the columns that the model was fitted on, else those of the configuration."""
    settings = config.input
    if model is not None and not settings.features:
        settings = settings.model_copy(update={"features": model.features, "exogenous": model.exogenous})
    return open_files(
        inputs, settings, batch_rows=config.runtime.batch_rows, label=label,
        on_dead_letter=on_dead_letter, on_note=on_note,
    )  # fmt: skip
