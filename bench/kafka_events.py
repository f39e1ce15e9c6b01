"""The events of the Kafka benchmark: readings as 49-byte JSON values under 13-byte keys, round after round of streams.

`sensor-004711` and `{"ts":1700000000000,"value":20.1234,"unit":"Cel"}`: a number of 13 digits, one of six and a text
that nobody asked for.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.agreement import Disagreement
from bench.fitted import readings
from streamlstm.types import Int64

EXAMPLE = b'{"ts":1700000000000,"value":20.1234,"unit":"Cel"}'
START_MS, TICK_MS = 1_700_000_000_000, 60_000
FEATURE, TIME = "value", "ts"

_TS, _WHOLE, _PART = slice(6, 19), slice(28, 30), slice(31, 35)  # where the digits stand
_RARE, _SPIKE = 9973, 6.0  # one record in so many is so far off: there must be flags to write
_CHUNK = 1_000_000
_HIDDEN, _ROWS, _UPDATES = 32, 4000, 20  # as good as unfitted: speed does not depend on how well it predicts

Chunk = tuple[Int64, Int64, Int64]
"""Time in ms, number of the stream, value in ten-thousandths: each (n)."""


def chunks(streams: int, records: int, first: int = 0) -> Iterator[Chunk]:
    """The events from number `first` (a whole round) on to `records`, in pieces of whole rounds but for the last."""
    rounds = max(1, _CHUNK // streams)
    end = -(-records // streams)
    for begin in range(first // streams, end, rounds):
        minute = np.arange(begin, min(begin + rounds, end))
        value = readings(minute[:, None] + 1440 * np.arange(streams) / streams, 1, seed=begin)[..., 0]
        value[(minute[:, None] * 7 + np.arange(streams) * 13) % _RARE == 0] += _SPIKE
        count = min(len(minute) * streams, records - begin * streams)
        time = np.repeat(START_MS + TICK_MS * minute, streams)
        stream = np.tile(np.arange(streams), len(minute))
        yield time[:count], stream[:count], np.rint(value.reshape(-1)[:count] * 1e4).astype(np.int64)


def json_values(time_ms: Int64, value: Int64) -> list[bytes]:
    """The events' values; ten-thousandths must have six digits, times thirteen."""
    if len(value) and (value.min() < 100_000 or value.max() >= 1_000_000):
        raise ValueError(f"values must have six digits, got {value.min()} to {value.max()}")
    text = np.tile(np.frombuffer(EXAMPLE, np.uint8), (len(value), 1))
    for digits, number in ((_TS, time_ms), (_WHOLE, value // 10_000), (_PART, value % 10_000)):
        width = digits.stop - digits.start
        text[:, digits] = ord("0") + number[:, None] // 10 ** np.arange(width)[::-1] % 10
    return text.view(f"S{len(EXAMPLE)}").reshape(-1).tolist()  # type: ignore[no-any-return]


def keys(streams: int) -> list[bytes]:
    """The keys of all streams."""
    return [b"sensor-%06d" % n for n in range(streams)]


def checksum(streams: int, records: int) -> float:
    """The sum of the values of the first records."""
    return sum(int(value.sum()) for _, _, value in chunks(streams, records)) / 1e4


def check(what: str, expected: tuple[int, float], count: int, total: float) -> None:
    """Raises Disagreement unless a contender read so many records with that sum of values."""
    if count != expected[0] or not abs(total - expected[1]) <= 1e-9 * abs(expected[1]):
        raise Disagreement(
            f"{what}: {count} records with the sum {total!r}, expected {expected[0]} with {expected[1]!r}; not timed"
        )


def model_path(folder: Path) -> Path:
    """The model of all cases."""
    return folder / "kafka.safetensors"


def write_model(folder: Path) -> None:
    """Fits on one stream, so that every stream is live from its first record; writes once per folder."""
    from streamlstm.detect.detector import Detector
    from streamlstm.learn.fit import Recording, fit
    from streamlstm.model.files import save_model

    if not model_path(folder).exists():
        config = Detector({"model": {"hidden_size": _HIDDEN}, "training": {"updates": _UPDATES}}).config
        minutes = np.arange(_ROWS)
        recording = Recording(TICK_MS * 10**6 * minutes, readings(minutes.astype(np.float64), 1, seed=0))
        save_model(fit({"fitted": recording}, config, (FEATURE,)), model_path(folder))


def remembered_flags(folder: Path, streams: int, records: int) -> int:
    """What `expected_flags` says, found once per folder."""
    path = folder / "flags.json"
    if not path.exists():
        path.write_text(str(expected_flags(folder, streams, records)))
    return int(path.read_text())


def expected_flags(folder: Path, streams: int, records: int) -> int:
    """How many of the events a detector in this process flags: the daemon must flag as many."""
    import pyarrow as pa

    from streamlstm.detect.detector import Detector
    from streamlstm.types import EventBatch

    detector = Detector.load(model_path(folder))
    names = pa.array([key.decode() for key in keys(streams)])
    flags = first = 0
    for time, stream, value in chunks(streams, records):
        row = np.arange(first, first + len(time))
        batch = EventBatch(names.take(pa.array(stream)), time * 10**6, (value / 1e4)[:, None], row, "events/0")
        flags += int(detector.process_events(batch).flag.sum())
        first += len(time)
    if not 0 < flags < records // 50:
        raise Disagreement(f"{flags} of {records} events are flagged; not a usual topic")
    return flags
