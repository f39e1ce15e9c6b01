"""What the daemon sends: flags, scores, episodes and dead letters, each to its sink, and how far they were acknowledged."""

from collections.abc import Sequence
from typing import Any

from streamlstm.config import Config, config_hash
from streamlstm.detect.chunks import NO_MODEL
from streamlstm.detect.detector import Detector
from streamlstm.sinks.delivery import DeliverySink, LetterSink, open_delivery_sink, open_letter_sink
from streamlstm.sinks.flagged import Flagged
from streamlstm.sinks.schemas import episodes_schema, flags_schema, scores_schema
from streamlstm.sinks.tables import episodes_table, scores_table
from streamlstm.types import DeadLetter, Episode, ScoredBatch

Mark = tuple[int, ...]


class Emitter:
    """The sinks of one daemon. `flags` and `dead_letters` count what was sent."""

    def __init__(self, config: Config, detector: Detector, producer: Any) -> None:
        outputs, features = config.outputs, detector.features
        self.flags = self.dead_letters = 0
        self.detail = outputs.detail == "all"
        self._model = detector.model.hash if detector.model else NO_MODEL
        self._config = config_hash(config)
        self._sinks: list[DeliverySink | LetterSink] = []

        def opened(address: str | None, schema: Any) -> DeliverySink | None:
            if address is None:
                return None
            sink = open_delivery_sink(address, schema, producer=producer, settings=config, letters=self._letters)
            self._sinks.append(sink)
            return sink

        self._letters = open_letter_sink(outputs.dead_letters, producer=producer, settings=config)
        self._sinks.append(self._letters)
        try:
            self._flags = opened(outputs.flags, flags_schema(features))
            self._scores = opened(outputs.scores, scores_schema(features, detail=self.detail))
            self._episodes = opened(outputs.episodes, episodes_schema())
        except BaseException:
            self.close()
            raise

    def emit(self, source: str, scored: ScoredBatch, closed: Sequence[Episode]) -> None:
        """Sends what a detector said of records of `source`."""
        count = int(scored.flag.sum())
        self.flags += count
        if count and self._flags is not None:
            self._flags.write(Flagged(scored, source, self._model, self._config), source)
        if self._scores is not None:
            self._scores.write(scores_table(scored, detail=self.detail), source)
        if closed and self._episodes is not None:
            self._episodes.write(episodes_table(closed), source)

    def letter(self, letter: DeadLetter) -> None:
        """Sends a record that could not be read."""
        self.dead_letters += 1
        self._letters.write(letter)

    def ready(self) -> bool:
        """Whether every sink takes more; else the source has to pause."""
        return all(sink.ready() for sink in self._sinks)

    def mark(self) -> Mark:
        """How much each sink has taken so far."""
        return tuple(sink.sent for sink in self._sinks)

    def settled(self, mark: Mark) -> bool:
        """Whether all that was sent before `mark` is acknowledged; raises the OutputError of what failed for good."""
        return all(sink.acknowledged() >= sent for sink, sent in zip(self._sinks, mark, strict=True))

    def flush(self, timeout_s: float) -> bool:
        """Waits until all is acknowledged; False where the time is over before."""
        return all(sink.flush(timeout_s) for sink in self._sinks)

    def oldest_s(self) -> float:
        """Seconds that the oldest unacknowledged row has waited."""
        return max(sink.oldest_s() for sink in self._sinks)

    def troubles(self) -> list[str]:
        """What keeps rows waiting, in words."""
        return [trouble for sink in self._sinks if (trouble := sink.trouble()) is not None]

    def reset(self) -> None:
        """Forgets what was sent in a transaction that was aborted."""
        for sink in self._sinks:
            sink.reset()

    def close(self) -> None:
        """Closes the sinks."""
        for sink in self._sinks:
            sink.close()
