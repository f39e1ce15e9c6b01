"""`--workers N`: processes that each score a part of the streams, behind the face of one detector.

A stream's output depends on its own records alone while weights are frozen, so any division of the streams gives the
same bits. The caller's process reads and writes; a worker gets its streams' records of each batch and gives scores back.
"""

import multiprocessing
import signal
from contextlib import suppress
from dataclasses import fields
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.errors import UsageError, WorkerError
from streamlstm.model.network import Model
from streamlstm.service.warmup import warm_up
from streamlstm.state.keys import KeyTable
from streamlstm.types import Episode, EventBatch, Float64, ScoredBatch

_STOP_S = 5.0  # time for a worker to leave by itself
_WHOLE = ("features", "keys", "time", "row", "value")  # fields of a scored batch that the caller's process has


class Scorer(Protocol):
    """What a replay needs of a detector; a `Detector` or a `Crew`."""

    @property
    def config(self) -> Config:
        """The configuration in force."""
        ...

    @property
    def model(self) -> Model | None:
        """The model, None where there is none."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the predicted columns."""
        ...

    def keys(self) -> list[str]:
        """Keys of all streams seen, in the order of their first records."""
        ...

    def score_events(self, batch: EventBatch, *, detail: bool = False) -> ScoredBatch:
        """Scores the records of a source, which are in the order in which they are to be scored."""
        ...

    def closed_episodes(self) -> list[Episode]:
        """Episodes that closed since the last call."""
        ...

    def open_episodes(self) -> list[Episode]:
        """Episodes that are open now."""
        ...

    def stages(self) -> dict[str, int]:
        """Number of streams in each stage."""
        ...

    def time_faults(self) -> tuple[int, int, int]:
        """Records older than one before, records that repeat a time, and how many of them were dropped."""
        ...

    def possible_rates(self) -> Float64:
        """Alarms per day that those live streams can keep whose data cannot support the wished rate."""
        ...


class Crew:
    """A `Scorer` of several processes; a context, which ends them."""

    def __init__(
        self, workers: int, config: Config, model: Model | None, features: tuple[str, ...], exogenous: tuple[str, ...]
    ) -> None:
        if model is None or config.learning.mode == "online":
            raise UsageError(
                "--workers: shared weights that learn have one copy, which all records pass in their order; "
                "give a --model with learning.mode: frozen, or leave --workers out"
            )
        if config.learning.max_known_streams is not None:
            raise UsageError(
                "--workers: which stream learning.max_known_streams forgets depends on all of them; "
                "leave one of the two out"
            )
        self.config, self.model, self.features = config, model, features
        self._keys = KeyTable()
        self._closed: list[Episode] = []
        self._exchanging = False
        warm_up()  # one process fills the compile cache; several at once have crashed it
        context = multiprocessing.get_context("spawn")  # never fork a process whose kernels have started threads
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(workers):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, config, model, features, exogenous), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(_STOP_S)
            if process.is_alive():
                process.terminate()

    def keys(self) -> list[str]:
        """Keys of all streams seen, in the order of their first records."""
        keys: list[str] = self._keys.strings().to_pylist()
        return keys

    def score_events(self, batch: EventBatch, *, detail: bool = False) -> ScoredBatch:
        """Scores the records of a source, each in the worker of its stream."""
        slots = self._keys.slots_of(batch.keys)
        self._exchanging = True
        parts = [np.flatnonzero(slots % len(self._pipes) == n) for n in range(len(self._pipes))]
        for pipe, part in zip(self._pipes, parts, strict=True):
            _send(pipe, ("score", batch.take(part), detail))
        columns: dict[str, Any] = {}
        for pipe, part in zip(self._pipes, parts, strict=True):
            scored, closed = _answer(pipe)
            self._closed += closed
            for name, values in scored.items():
                if name not in columns:
                    shape = (len(batch), *values.shape[1:])
                    columns[name] = np.empty(shape, values.dtype)
                columns[name][part] = values
        self._exchanging = False
        value = batch.x[:, : len(self.features)]
        return ScoredBatch(self.features, batch.keys, batch.time, batch.row, value, **columns)

    def closed_episodes(self) -> list[Episode]:
        """Episodes that closed since the last call."""
        closed, self._closed = self._closed, []
        return closed

    def open_episodes(self) -> list[Episode]:
        """Episodes that are open now; none after an interruption in mid-exchange, whose rest is still in the pipes."""
        if self._exchanging:
            return []
        return [episode for answer in self._ask("open_episodes") for episode in answer]

    def stages(self) -> dict[str, int]:
        """Number of streams in each stage."""
        answers = self._ask("stages")
        return {name: sum(answer[name] for answer in answers) for name in answers[0]}

    def time_faults(self) -> tuple[int, int, int]:
        """Records older than one before, records that repeat a time, and how many of them were dropped."""
        answers = self._ask("time_faults")
        return sum(a[0] for a in answers), sum(a[1] for a in answers), sum(a[2] for a in answers)

    def possible_rates(self) -> Float64:
        """See `Scorer`."""
        return np.concatenate(self._ask("possible_rates"))

    def _ask(self, method: str) -> list[Any]:
        for pipe in self._pipes:
            _send(pipe, (method,))
        return [_answer(pipe) for pipe in self._pipes]


_ENDED = "a worker process has ended; look for its own message above, or for lack of memory"


def _send(pipe: Connection, request: tuple[Any, ...]) -> None:
    try:
        pipe.send(request)
    except ConnectionError:
        raise WorkerError(_ENDED) from None


def _answer(pipe: Connection) -> Any:
    try:
        answer = pipe.recv()
    except (EOFError, ConnectionError):
        raise WorkerError(_ENDED) from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _serve(
    pipe: Connection, config: Config, model: Model, features: tuple[str, ...], exogenous: tuple[str, ...]
) -> None:
    """A worker: answers until the other end is closed. Ctrl-C is the caller's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    detector = Detector(config, model=model, features=features, exogenous=exogenous)
    wanted = [field.name for field in fields(ScoredBatch) if field.name not in _WHOLE]
    with suppress(EOFError, ConnectionError):
        while True:
            request = pipe.recv()
            try:
                if request[0] == "score":
                    scored = detector.score_events(request[1], detail=request[2])
                    pipe.send(({name: getattr(scored, name) for name in wanted}, detector.closed_episodes()))
                else:
                    pipe.send(getattr(detector, request[0])())
            except Exception as error:  # it is the caller who can tell the user
                pipe.send(error)
