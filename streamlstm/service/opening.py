"""From a command's arguments to a source, a model, a configuration and outputs that fit each other."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from streamlstm.config import Config, load, model_file
from streamlstm.detect.detector import Detector
from streamlstm.errors import InputError, OutputError, UsageError
from streamlstm.model.files import load_model
from streamlstm.model.network import Model
from streamlstm.sources import FileSource, NoColumnError, open_files
from streamlstm.sources.addresses import is_topic
from streamlstm.sources.ranges import TopicRange
from streamlstm.types import DeadLetter

log = logging.getLogger(__name__)
STDIN = STDOUT = "-"


def resolve(
    config: str | Path | Config | None, model: str | Path | None, overrides: Mapping[str, Any]
) -> tuple[Config, Model | None]:
    """Configuration and model; `model` is a file, else the configuration's `model.file` is it, if that is set.

    The settings that the model was fitted with lie below the configuration's.
    """
    path = model or model_file(config, overrides=overrides)
    if path is None:
        return load(config, overrides=overrides), None
    found = load_model(path)
    return load(config, overrides=overrides, base=found.settings), found


def open_source(
    inputs: Sequence[str],
    config: Config,
    model: Model | None,
    *,
    label: str | None,
    on_dead_letter: Callable[[DeadLetter], None],
    on_note: Callable[[str], None],
) -> FileSource | TopicRange:
    """The records of `inputs` with the columns that the model was fitted on, else those of the configuration."""
    settings = config.input
    if model is not None and not settings.features:
        settings = settings.model_copy(update={"features": model.features, "exogenous": model.exogenous})
    if any(is_topic(address) for address in inputs):
        if len(inputs) > 1 or label is not None:
            raise UsageError(f"{inputs[0]}: a topic range stands alone, and its records carry no label column")
        return TopicRange(
            inputs[0], config.model_copy(update={"input": settings}), on_dead_letter=on_dead_letter, on_note=on_note
        )
    try:
        return open_files(
            inputs, settings, batch_rows=config.runtime.batch_rows, label=label,
            on_dead_letter=on_dead_letter, on_note=on_note,
        )  # fmt: skip
    except NoColumnError as error:
        if model is None:
            raise
        raise InputError(f"{error}; the model was fitted on {', '.join(model.features + model.exogenous)}") from error


def make_detector(
    config: Config, model: Model | None, features: tuple[str, ...], exogenous: tuple[str, ...]
) -> Detector:
    """A detector of these columns with the threads that the configuration asks for."""
    detector = Detector(config, model=model, features=features, exogenous=exogenous)
    detector.threads = config.runtime.num_threads
    if detector.backend_note:
        log.warning(detector.backend_note)
    if detector.threads > 1 and not detector.online:  # never in the first event's time
        detector.engine.start_threads(detector.pool.rows, detector.threads)
    return detector


def config_path(config: str | Path | Config | None) -> str | Path | None:
    """The file that a configuration is read from, if it is one."""
    return None if isinstance(config, Config) else config


def check_outputs(outputs: Iterable[str | Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Raises where two outputs, or an output and an input, are one file, and where an output's folder is missing.

    Said before the first record: an output is emptied when it is opened. None stands for nothing, `-` for a standard
    stream.
    """
    taken = {Path(path).resolve() for path in inputs if path is not None and str(path) != STDIN}
    written = set()
    for path in outputs:
        if path is None:
            continue
        place = Path(path).resolve() if str(path) != STDOUT else STDOUT
        if place in written:
            raise UsageError(f"{path}: two outputs go there; give each a place of its own")
        if place in taken:
            raise UsageError(f"{path}: is read by this run and would be overwritten; choose another place")
        if isinstance(place, Path) and not place.parent.is_dir():
            raise OutputError(f"{path}: there is no folder {place.parent}; create it or choose another place")
        written.add(place)
