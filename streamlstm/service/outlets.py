"""Where a run's results go: tables, episodes, a report's series, an evaluation. Opened before the first record."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyarrow as pa

from streamlstm.config import config_hash
from streamlstm.detect.chunks import NO_MODEL
from streamlstm.errors import OutputError
from streamlstm.evaluate import Evaluation
from streamlstm.report import SeriesCollector
from streamlstm.service.crew import Scorer
from streamlstm.sinks import Sink, open_sink
from streamlstm.sinks.schemas import episodes_schema, flags_schema, scores_schema
from streamlstm.sinks.tables import episodes_table, flags_table, scores_table
from streamlstm.types import Episode, EventBatch, ScoredBatch


@dataclass(frozen=True, slots=True)
class Wanted:
    """Outputs of a run: paths by suffix (`-` is standard output), None for none."""

    flags: str | None = None
    scores: str | None = None
    scores_detail: bool = False
    episodes: str | None = None
    report: str | None = None


class Outlets:
    """Writes what a detector says; a context, which closes its files however the run ends."""

    def __init__(self, wanted: Wanted, scorer: Scorer, evaluation: Evaluation | None) -> None:
        self.flags = self.episodes = 0
        self.kept: list[Episode] = []
        self.collector = SeriesCollector(scorer.features) if wanted.report else None
        self.detail = wanted.scores_detail or wanted.report is not None
        self._scores_detail = wanted.scores_detail
        self._scorer = scorer
        self._evaluation = evaluation
        self._model = scorer.model.hash if scorer.model else NO_MODEL
        self._config = config_hash(scorer.config)
        self._stack = ExitStack()
        features = scorer.features
        try:
            self._flags = self._open(wanted.flags, flags_schema(features))
            self._scores = self._open(wanted.scores, scores_schema(features, detail=wanted.scores_detail))
            self._episodes = self._open(wanted.episodes, episodes_schema())
        except BaseException:
            self._stack.close()
            raise

    def _open(self, path: str | None, schema: pa.Schema) -> Sink | None:
        if path is None:
            return None
        sink = open_sink(path, schema)
        self._stack.callback(sink.close)
        return sink

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if self._scorer.features and not isinstance(error, OutputError):  # else the next error would hide it
                self._take(self._scorer.open_episodes())
        finally:
            self._stack.close()

    def write(self, batch: EventBatch, scored: ScoredBatch) -> None:
        """Takes one scored batch and the episodes that it closed."""
        self.flags += int(scored.flag.sum())
        if self._scores is not None:
            self._scores.write(scores_table(scored, detail=self._scores_detail))
        if self._flags is not None:
            self._flags.write(flags_table(scored, source=batch.source, model=self._model, config=self._config))
        if self.collector is not None:
            self.collector.add(scored)
        if self._evaluation is not None:
            self._evaluation.add(scored, batch.label)
        closed = self._scorer.closed_episodes()
        if closed:
            self._take(closed)

    def _take(self, episodes: Sequence[Episode]) -> None:
        episodes = sorted(episodes, key=lambda episode: (episode.opened, episode.id))  # whoever scored them
        self.episodes += len(episodes)
        if self._episodes is not None and episodes:
            self._episodes.write(episodes_table(episodes))
        if self._evaluation is not None:
            for episode in episodes:
                self._evaluation.add_episode(episode)
        if self.collector is not None:
            self.kept += episodes
