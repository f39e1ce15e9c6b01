"""A `Scorer` of a topic range: one detector per partition, as the daemon has them."""

from collections.abc import Callable

import numpy as np

from streamlstm.detect.detector import Detector
from streamlstm.types import Episode, EventBatch, Float64, ScoredBatch


class Partitioned:
    """Scores each partition's records by a detector of its own, which `make` makes at the partition's first record."""

    def __init__(self, make: Callable[[], Detector]) -> None:
        self._make = make
        self._sample = make()
        self.config, self.model, self.features = self._sample.config, self._sample.model, self._sample.features
        self._detectors: dict[str, Detector] = {}

    def keys(self) -> list[str]:
        """Keys of all streams, partition after partition; a key in two partitions is two streams."""
        return [key for detector in self._detectors.values() for key in detector.keys()]  # noqa: SIM118 - not a mapping

    def score_events(self, batch: EventBatch, *, detail: bool = False) -> ScoredBatch:
        """Scores the records of one partition."""
        if batch.source not in self._detectors:
            self._detectors[batch.source] = self._make()
        return self._detectors[batch.source].score_events(batch, detail=detail)

    def closed_episodes(self) -> list[Episode]:
        """Episodes that closed since the last call."""
        return [episode for detector in self._detectors.values() for episode in detector.closed_episodes()]

    def open_episodes(self) -> list[Episode]:
        """Episodes that are open now."""
        return [episode for detector in self._detectors.values() for episode in detector.open_episodes()]

    def stages(self) -> dict[str, int]:
        """Number of streams in each stage."""
        counts = self._sample.stages()
        for detector in self._detectors.values():
            counts = {name: counts[name] + number for name, number in detector.stages().items()}
        return counts

    def time_faults(self) -> tuple[int, int, int]:
        """Records older than one before, records that repeat a time, and how many of them were dropped."""
        faults = [detector.time_faults() for detector in self._detectors.values()]
        return sum(of[0] for of in faults), sum(of[1] for of in faults), sum(of[2] for of in faults)

    def possible_rates(self) -> Float64:
        """See `Detector.possible_rates`."""
        return np.concatenate([np.zeros(0), *(detector.possible_rates() for detector in self._detectors.values())])
