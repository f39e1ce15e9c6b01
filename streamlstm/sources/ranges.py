"""A range of a topic, read from start to end without a group: a `Source` as files are."""

import time
from collections.abc import Callable, Iterator

import numpy as np

from streamlstm.config import Config
from streamlstm.errors import InputError, UsageError
from streamlstm.sources.addresses import Place, parse_address
from streamlstm.sources.decoders.opening import open_decoder
from streamlstm.sources.topics import KafkaSource
from streamlstm.types import DeadLetter, EventBatch, RawBlock

_POLL_MS = 500
IDLE_S = 30.0


class TopicRange:
    """The records of an address, partition after partition; a `Source` that can be iterated again.

    The range is fixed when this is made: records that are written later are not in it. Its end is that of everything
    written, committed or not. Servers and topic are the address's, all other settings of `config` hold. InputError
    when nothing comes for `idle_s` seconds.
    """

    def __init__(
        self,
        address: str,
        config: Config,
        *,
        on_dead_letter: Callable[[DeadLetter], None],
        on_note: Callable[[str], None],
        idle_s: float = IDLE_S,
    ) -> None:
        parsed = parse_address(address)
        self.paths = (address,)
        self._decoder = open_decoder(config, config.input.features, config.input.exogenous)
        self.columns = self._decoder.columns
        self._kafka = config.kafka.model_copy(update={"bootstrap_servers": parsed.servers, "topics": (parsed.topic,)})
        self._batch_rows, self._idle_s = config.runtime.batch_rows, idle_s
        self._on_dead_letter, self._on_note = on_dead_letter, on_note
        self._done = 0
        # read_committed ends before the first open transaction and would hide what was committed behind it
        source = self._source("read_uncommitted")
        try:
            numbers = source.require((parsed.topic,))[parsed.topic]
            if parsed.partition is not None and parsed.partition not in numbers:
                listed = ", ".join(map(str, numbers))
                raise UsageError(f"{address}: there is no partition {parsed.partition}; there are {listed}")
            chosen = numbers if parsed.partition is None else (parsed.partition,)
            names = [f"{parsed.topic}/{number}" for number in chosen]
            self._bounds = {name: self._find_bounds(source, name, parsed.start, parsed.stop) for name in names}
        finally:
            source.close()

    @property
    def infinities(self) -> int:
        """Infinite values, which are read as missing."""
        return self._decoder.infinities

    def __iter__(self) -> Iterator[EventBatch]:
        for block in self.blocks():
            for first in range(0, len(block), self._batch_rows):
                batch = self._decoder.decode(_part(block, first, first + self._batch_rows), self._on_dead_letter)
                if len(batch):
                    yield batch

    def progress(self) -> tuple[int, int]:
        """Offsets read, and all offsets of the range."""
        return self._done, sum(stop - start for start, stop in self._bounds.values())

    def blocks(self) -> Iterator[RawBlock]:
        """The records as they lie in the topic, before they are decoded."""
        before = 0
        for name, (start, stop) in self._bounds.items():
            if start < stop:
                yield from self._read(name, start, stop, before)
            before += stop - start
            self._done = before

    def _read(self, name: str, start: int, stop: int, before: int) -> Iterator[RawBlock]:
        source = self._source(self._kafka.isolation)
        try:
            source.assign((name,))
            source.seek(name, start)
            source.resume(name)
            at, since = start, time.monotonic()
            while at < stop:
                for block in source.poll(_POLL_MS):
                    inside = int(np.searchsorted(block.offset, stop))
                    if inside:
                        yield _part(block, 0, inside)
                        since = time.monotonic()  # the time that the caller took is not the broker's
                for trouble in source.troubles():
                    raise InputError(f"{self.paths[0]}: {name}: {trouble.reason}")
                position = source.position(name)
                if position is not None and position > at:
                    at, since = position, time.monotonic()
                    self._done = before + min(at, stop) - start
                elif time.monotonic() - since > self._idle_s:
                    raise InputError(
                        f"{self.paths[0]}: {name} gives nothing for {self._idle_s:g} s at offset {at}, "
                        f"{stop - at} before the end; check the broker, or whether a transaction is open there"
                    )
        finally:
            source.close()

    def _find_bounds(self, source: KafkaSource, name: str, start: Place | None, stop: Place | None) -> tuple[int, int]:
        """First offset and end, within what the partition has."""
        low, high = source.first_offset(name), source.end_offset(name)
        first, end = (_offset(source, name, place, high) for place in (start, stop))
        if first is not None and first < low:
            self._on_note(f"{name}: the records before offset {low} are gone")
        if end is not None and end > high:
            self._on_note(f"{name}: ends at offset {high}")
        first = low if first is None else max(first, low)
        end = high if end is None else min(end, high)
        return first, max(first, end)

    def _source(self, isolation: str) -> KafkaSource:
        return KafkaSource(
            self._kafka, client_id="streamlstm-range", group=False, isolation=isolation,
            on_dead_letter=self._on_dead_letter,
        )  # fmt: skip


def _offset(source: KafkaSource, name: str, place: Place | None, end: int) -> int | None:
    """The offset that a place means, None for no place."""
    if place is None or place.kind == "offset":
        return None if place is None else place.number
    found = source.offset_at(name, place.number)
    return end if found is None else found


def _part(block: RawBlock, first: int, end: int) -> RawBlock:
    """Records first .. end, in the same memory."""
    at = slice(first, end)
    return RawBlock(block.source, block.data, block.keys[at], block.values[at], block.offset[at], block.timestamp[at])
