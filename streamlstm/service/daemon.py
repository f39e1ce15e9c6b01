"""The loop: poll, decode, detect, send, snapshot, commit. It owns everything; other threads only carry bytes."""

import logging
import socket
import time
from collections.abc import Callable, Collection
from contextlib import suppress

import numpy as np

from streamlstm.config import Config
from streamlstm.detect.detector import Detector
from streamlstm.errors import OutputError
from streamlstm.kafka_client import BrokerError, KafkaError, explain, make_producer, quieten, read_widely
from streamlstm.model.network import Model
from streamlstm.service.checkpoints import Checkpoints
from streamlstm.service.delivery import AtLeastOnce, Delivery, ExactlyOnce, LostError, Positions
from streamlstm.service.emitter import Emitter
from streamlstm.service.opening import make_detector
from streamlstm.service.restoring import Partition, open_partition
from streamlstm.service.status import Meter, Status
from streamlstm.service.writer import Writer
from streamlstm.sinks.delivery import check_exactly_once, check_outputs, needs_producer
from streamlstm.sources.decoders.opening import open_decoder
from streamlstm.sources.topics import KafkaSource, Trouble
from streamlstm.state.stores import open_store
from streamlstm.types import DeadLetter, Float64, RawBlock

log = logging.getLogger(__name__)
_POLL_MS = 200
_MOST_ROWS = 1 << 18
"""Scored and sent at once: tables of flags take a millisecond or two, however few there are."""
_LONGEST_WAIT_S = 30.0
_SILENCE_S = 15.0
"""Without an answer to a heartbeat, of which there is one every three seconds."""
_UNACKNOWLEDGED_S = 120.0
"""Longest wait for an acknowledgement before producer and sinks are made anew."""


class Daemon:
    """One worker: a member of the group, its partitions and all that they need. `on_round` is called in every round."""

    def __init__(
        self, config: Config, model: Model | None, *, on_round: Callable[[], None] = lambda: None, worker: int = 0
    ) -> None:
        quieten()
        read_widely()
        self._config, self._model, self._on_round = config, model, on_round
        self._name = f"{config.kafka.group_id}-{socket.gethostname()}-{worker}"
        named = config.delivery.transactional_id
        self._transactional_id = self._name if named is None else f"{named}-{worker}" if worker else named
        self._exact = config.delivery.mode == "exactly_once"
        check_outputs(config)
        if self._exact:
            check_exactly_once(config)
        sample = self._detector()
        self._decoder = open_decoder(config, sample.features, sample.exogenous)
        self._store = open_store(config, client_id=self._name)
        self._writer = Writer()
        self._partitions: dict[str, Partition] = {}
        self._parked: dict[str, Partition] = {}
        self._parked_in = -1
        self._to_open: list[str] = []
        self._restore_s = 0.0
        self._unseen = dict(enumerate((*sample.features, *sample.exogenous)))
        self._warn_at = 1000
        self._retries: dict[str, float] = {}
        self._silent, self._say_at = False, 0.0
        self._forgets = False
        self._void: str | None = None
        self._stop: Callable[[], bool] = lambda: False
        self._failures = 0
        self._meter = Meter()
        self._source = KafkaSource(
            config.kafka, client_id=self._name, worker=worker, on_dead_letter=self._letter,
            on_revoked=self._revoked, on_lost=self._lost,
        )  # fmt: skip
        self._set_up(sample)

    def _detector(self) -> Detector:
        columns = self._config.input
        return make_detector(self._config, self._model, columns.features, columns.exogenous)

    def _set_up(self, sample: Detector) -> None:
        """Producer, sinks and what depends on them."""
        config = self._config
        self._producer = None
        if self._exact or needs_producer(config.outputs):
            transactional = self._transactional_id if self._exact else None
            self._producer = make_producer(config.kafka, client_id=self._name, transactional_id=transactional)
            if self._exact:
                try:
                    self._producer.init_transactions()
                except KafkaError as error:
                    raise explain(error, config.kafka) from error
        self._emitter = Emitter(config, sample, self._producer)
        interval = config.delivery.commit_interval_s
        self._delivery: Delivery = (
            ExactlyOnce(self._source, self._emitter, self._producer, interval, self._on_round)
            if self._exact
            else AtLeastOnce(self._source, self._emitter, interval)
        )
        self._checkpoints = Checkpoints(self._writer, self._delivery, config.delivery.snapshot_interval_s)

    # ---- the loop

    def run(self, stop: Callable[[], bool]) -> None:
        """Reads on until `stop` says so; then everything is delivered, snapshotted, committed and closed."""
        self._stop = stop
        self._source.subscribe(self._config.kafka.topics)
        try:
            while not stop():
                self._on_round()
                self._round()
            self._finish()
        finally:
            self._close()

    def _round(self) -> None:
        try:
            self._check()
            self._open_assigned()
            self._source.hold(not self._emitter.ready())
            self._retry()
            blocks = self._source.poll(_POLL_MS)
            self._check()  # before anything of a partition that was lost in there is committed
            for block in blocks:
                self._take(block)
            if not blocks:
                self._listen()
            for trouble in self._source.troubles():
                self._help(trouble)
            began = time.perf_counter()
            self._delivery.step(self._positions())
            self._checkpoints.step(self._partitions.values())
            self._meter.stalled(time.perf_counter() - began)
            if self._emitter.oldest_s() > _UNACKNOWLEDGED_S:
                reasons = "; ".join(self._emitter.troubles())
                raise LostError(f"nothing was acknowledged for {_UNACKNOWLEDGED_S:.0f} s: {reasons}")
            self._failures = 0
        except (LostError, OutputError, BrokerError) as error:
            self._rewind(error)

    def _check(self) -> None:
        if self._void is not None:
            raise LostError(self._void)

    def _take(self, block: RawBlock) -> None:
        """Scores one block and sends what the detector says of it."""
        partition = self._partitions.get(block.source)
        if partition is None:
            return  # taken away while it was fetched
        self._meter.events += len(block)
        if block.offset[-1] >= partition.live_from:
            self._delivery.begin()
        batch = self._decoder.decode(block, self._letter)
        if self._unseen:
            self._look_for_columns(batch.x)
        silent = int(batch.row.searchsorted(partition.live_from))
        for first, end, sent in (*_slices(0, silent, sent=False), *_slices(silent, len(batch), sent=True)):
            scored = partition.detector.process_events(batch.part(first, end), detail=self._emitter.detail)
            if partition.detector.pool.forgotten and not self._forgets:
                self._forgets = True
                bound = self._config.learning.max_known_streams
                log.warning(
                    "%s: more than %s streams; from now on those idle for longest are forgotten "
                    "(learning.max_known_streams)", partition.name, f"{bound:,}",
                )  # fmt: skip
            closed = partition.detector.closed_episodes()
            if sent and len(scored):
                self._emitter.emit(block.source, scored, closed)
        partition.position = int(block.offset[-1]) + 1

    def _look_for_columns(self, x: Float64) -> None:
        """Warns of columns that no record has had so far: a misspelt field is missing, record by record, and no error."""
        self._unseen = {at: name for at, name in self._unseen.items() if np.isnan(x[:, at]).all()}
        if self._unseen and self._meter.events >= self._warn_at:
            self._warn_at *= 10
            named = ", ".join(self._unseen.values())
            log.warning(
                "none of the first %s records has a value of %s; is a name wrong?", f"{self._meter.events:,}", named
            )

    def _letter(self, letter: DeadLetter) -> None:
        partition = self._partitions.get(letter.source)
        if partition is not None and letter.line >= partition.live_from:
            self._delivery.begin()
            self._emitter.letter(letter)

    def _positions(self) -> Positions:
        return {name: max(p.position, p.live_from) for name, p in self._partitions.items()}

    def _help(self, trouble: Trouble) -> None:
        """A damaged batch is asked for again, a partition without its offset goes by the settings for that."""
        log.error("%s", trouble.reason)
        if trouble.kind != "corrupt":
            raise LostError(f"{trouble.partition} cannot go on at offset {trouble.offset}")
        self._retries[trouble.partition] = time.monotonic() + _LONGEST_WAIT_S

    def _retry(self) -> None:
        for name, due in list(self._retries.items()):
            if time.monotonic() >= due:
                del self._retries[name]
                if name in self._partitions:
                    self._source.seek(name, self._partitions[name].position)
                    self._source.resume(name)

    def _listen(self) -> None:
        """Says once a minute that no broker answers, and when one is back."""
        silence_s, now = self._source.silence_s(), time.monotonic()
        if silence_s > _SILENCE_S and now >= self._say_at:
            log.warning("no broker has answered for %.0f s; trying on, nothing is lost", silence_s)
            self._say_at, self._silent = now + 60.0, True
        elif silence_s <= _SILENCE_S and self._silent:
            log.info("the broker is back")
            self._say_at, self._silent = 0.0, False

    # ---- partitions come and go

    def _open_assigned(self) -> None:
        """Takes up what was assigned, of what has to be restored one in each round: members must come back to poll soon.

        kafka-python throws away a join that completes while nobody polls, and joins again.
        """
        assigned = self._source.take_assigned()
        if assigned is not None:
            self._to_open += assigned
            if self._source.generation() == self._parked_in + 1:  # nobody had the parked ones in between
                for name in [name for name in self._to_open if name in self._parked]:
                    self._source.seek(name, self._parked[name].position)
                    self._take_up(self._parked[name])
            self._parked.clear()
        if self._to_open:
            began = time.perf_counter()
            opened = open_partition(
                self._to_open[0], self._source, self._store, self._writer, self._detector, self._config.delivery,
                self._config.kafka.start,
            )  # fmt: skip
            self._restore_s = max(self._restore_s, time.perf_counter() - began)
            if opened is not None:  # else again after the next poll, unless it was taken away
                self._take_up(opened)

    def _take_up(self, partition: Partition) -> None:
        self._to_open.remove(partition.name)
        self._partitions[partition.name] = partition
        self._source.resume(partition.name)
        self._share_memory()

    def _share_memory(self) -> None:
        """Divides the streams that may be in memory among the partitions; no bit depends on it."""
        limit = self._config.runtime.max_streams
        if limit is not None and self._partitions:
            for partition in self._partitions.values():
                partition.detector.pool.limit = max(1, limit // len(self._partitions))

    def _revoked(self, partitions: Collection[str]) -> None:
        """On the consumer's thread, while the loop waits in poll: what was read is delivered and snapshotted."""
        names = _some(partitions)
        positions = self._positions()
        gone = self._take_away(partitions)
        self._parked = {}
        if not gone:
            return  # also at the end, when what is still undelivered must stay so
        deadline = time.monotonic() + self._config.service.revoke_budget_s
        try:
            whole = self._delivery.settle(positions, deadline - time.monotonic())
            whole = whole and self._checkpoints.finish(gone, max(0.0, deadline - time.monotonic()))
            if not whole:
                log.warning("%s: handed over without a last snapshot; the next worker reads a little again", names)
        except (LostError, OutputError) as error:
            self._void = f"while {names} was handed over: {error}"
        if self._source.eager and self._void is None:
            # An eager assignor takes all away and mostly gives the same back.
            self._parked, self._parked_in = {partition.name: partition for partition in gone}, self._source.generation()

    def _lost(self, partitions: Collection[str]) -> None:
        """On the consumer's thread: another worker may have these partitions by now, so nothing is written."""
        gone = self._take_away(partitions)
        self._checkpoints.drop(gone)
        self._parked = {}
        if gone:
            self._void = f"{_some(partitions)} went to another worker"

    def _take_away(self, names: Collection[str]) -> list[Partition]:
        self._to_open = [name for name in self._to_open if name not in names]
        return [self._partitions.pop(name) for name in names if name in self._partitions]

    def _rewind(self, error: Exception) -> None:
        """Gives up what is not delivered: sinks are opened anew, all partitions go back to their last snapshots."""
        self._failures += 1
        wait_s = min(2.0 ** (self._failures - 1), _LONGEST_WAIT_S)
        log.error("%s; back to the last snapshots in %.0f s", error, wait_s)
        self._void = None
        self._source.hold(True)
        self._checkpoints.drop(list(self._partitions.values()))
        self._delivery.abort()
        self._disconnect()
        self._parked.clear()
        self._take_away(list(self._partitions))
        due = time.monotonic() + wait_s
        while time.monotonic() < due and not self._stop():
            self._on_round()
            try:
                self._source.poll(_POLL_MS)
            except BrokerError as again:
                log.error("%s", again)
                time.sleep(_POLL_MS / 1000)
        try:
            self._set_up(self._detector())
        except (OutputError, BrokerError) as again:
            self._void = str(again)
        self._source.take_assigned()
        self._to_open = self._source.assigned()

    # ---- the end

    def _finish(self) -> None:
        """Delivers, snapshots and commits what was read, within the budget for that."""
        deadline = time.monotonic() + self._config.service.stop_budget_s
        partitions = list(self._partitions.values())
        try:
            done = self._delivery.finish(self._positions(), deadline - time.monotonic())
            done = done and self._checkpoints.finish(partitions, max(0.0, deadline - time.monotonic()))
        except (LostError, OutputError, BrokerError) as error:
            log.error("%s", error)
            done = False
        if not done:
            log.warning("stopped without a last snapshot; the next start reads a little again")

    def _disconnect(self) -> None:
        self._emitter.close()
        if self._producer is not None:
            with suppress(KafkaError):  # a producer that is stuck says so once more
                self._producer.close(timeout=1.0)

    def _close(self) -> None:
        self._writer.close(1.0)
        self._take_away(list(self._partitions))
        self._delivery.abort()
        self._source.close()
        self._disconnect()
        self._store.close()

    def status(self) -> Status:
        """What happened since the last call, and where things stand."""
        partitions = list(self._partitions.values())
        return self._meter.status(
            lag=self._source.lag() if partitions else None,
            flags=self._emitter.flags,
            dead_letters=self._emitter.dead_letters,
            streams=sum(len(p.detector.pool) for p in partitions),
            waiting=sum(len(p.detector.reorder or ()) for p in partitions),
            partitions=len(partitions),
            snapshots=self._writer.snapshots,
            written_at=[p.snapshots.written_at for p in partitions],
            restore_s=self._restore_s,
        )


def _slices(first: int, end: int, *, sent: bool) -> list[tuple[int, int, bool]]:
    return [(at, min(at + _MOST_ROWS, end), sent) for at in range(first, end, _MOST_ROWS)]


def _some(names: Collection[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
