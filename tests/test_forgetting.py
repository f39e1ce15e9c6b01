"""`learning.max_known_streams`: a stream that was forgotten begins anew, and nothing else can be told apart from no bound."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.config import Config
from streamlstm.detect import chunks
from streamlstm.detect.detector import Detector
from streamlstm.errors import UsageError
from streamlstm.kernels.layout import OPEN
from streamlstm.learn.fit import fit
from streamlstm.service.crew import Crew
from streamlstm.service.snapshots import Owner, PartitionSnapshots
from streamlstm.state.keys import KeyTable

BOUND = 64
SMALL: dict[str, Any] = {
    "model": {"hidden_size": 4},
    "learning": {"learning_rows": 10, "calibrating_rows": 20, "update_every": 16},
}
FIELDS = ("score", "threshold", "severity", "flag", "stage", "expected")


def bounded(**runtime: Any) -> dict[str, Any]:
    return SMALL | {"learning": SMALL["learning"] | {"max_known_streams": BOUND}, "runtime": runtime}


def lives(keys: Sequence[str]) -> tuple[list[str], int]:
    """The keys with the number of the life that each record belongs to, by an obvious list of the last records; and how
    many streams were forgotten."""
    order: OrderedDict[str, int] = OrderedDict()
    life: dict[str, int] = {}
    out, forgotten = [], 0
    for key in keys:
        if key in order:
            order.move_to_end(key)
        else:
            if len(order) == BOUND:
                order.popitem(last=False)
                forgotten += 1
            life[key] = life.get(key, 0) + 1
            order[key] = 0
        out.append(f"{key}#{life[key]}")
    return out, forgotten


def drawn(seed: int, rows: int, keys: int, churn: float) -> tuple[list[str], Any]:
    """Keys of which most come again and again, and a share `churn` once."""
    rng = np.random.default_rng(seed)
    often = rng.zipf(1.3, rows) % keys
    once = rng.random(rows) < churn
    names = [f"once-{n}" if one else f"key-{k}" for n, (one, k) in enumerate(zip(once, often, strict=True))]
    return names, np.sin(np.arange(rows) / 7) + 0.1 * rng.normal(size=rows)


def scored(detector: Detector, keys: Sequence[str], x: Any, cuts: Sequence[int]) -> dict[str, Any]:
    """Outputs of the records, given in batches that end at `cuts`."""
    edges = [0, *cuts, len(keys)]
    parts = [detector.process_batch(keys[a:b], None, x[a:b]) for a, b in pairwise(edges) if a < b]
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS}


def assert_same(expected: dict[str, Any], actual: dict[str, Any]) -> None:
    for name in FIELDS:
        assert expected[name].tobytes() == actual[name].tobytes(), name


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6), keys=st.sampled_from([40, 66, 90, 400]), churn=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    cuts=st.lists(st.integers(0, 900), max_size=6), max_streams=st.sampled_from([None, 64]),
)  # fmt: skip
def test_a_forgotten_stream_begins_anew(
    seed: int, keys: int, churn: float, cuts: list[int], max_streams: int | None
) -> None:
    names, x = drawn(seed, 900, keys, churn)
    renamed, forgotten = lives(names)
    detector = Detector(bounded(max_streams=max_streams), features=("value",))
    expected = scored(Detector(SMALL, features=("value",)), renamed, x, [])
    assert_same(expected, scored(detector, names, x, sorted(cuts)))
    assert detector.pool.forgotten == forgotten
    assert len(detector.pool) == min(BOUND, len(set(renamed)))
    assert sorted(detector.keys()) == sorted({key.partition("#")[0] for key in _last(names)})


def _last(names: Sequence[str]) -> list[str]:
    """The keys of the last BOUND different ones."""
    return list(OrderedDict.fromkeys(reversed(names)))[:BOUND]


def test_event_by_event_is_the_same() -> None:
    names, x = drawn(1, 600, 90, 0.1)
    whole = scored(Detector(bounded(), features=("value",)), names, x, [])
    detector = Detector(bounded(), features=("value",))
    single = [detector.process(key, -(2**63), [value]) for key, value in zip(names, x.tolist(), strict=True)]
    assert np.array([event.score for event in single], np.float32).tobytes() == whole["score"].tobytes()
    assert [event.stage for event in single] == whole["stage"].tolist()


@pytest.mark.parametrize("max_streams", [None, 64])
def test_snapshots_keep_who_goes_next(tmp_path: Path, max_streams: int | None) -> None:
    names, x = drawn(2, 1200, 100, 0.05)
    expected = scored(Detector(bounded(max_streams=max_streams), features=("value",)), names, x, [])
    detector = Detector(bounded(max_streams=max_streams), features=("value",))
    first = scored(detector, names[:700], x[:700], [100, 350])
    detector.snapshot(tmp_path / "s")
    rest = scored(Detector.restore(tmp_path / "s"), names[700:], x[700:], [])
    assert_same(expected, {name: np.concatenate([first[name], rest[name]]) for name in FIELDS})


class _Store:
    chunk_bytes = 4096

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}


def test_the_daemons_snapshots_are_of_one_moment(synthetic: Any) -> None:
    """Frozen weights: rows are copied piece by piece otherwise, while the detector goes on."""

    model = fit(synthetic(streams=1), Config.model_validate(SMALL | {"training": {"updates": 2}}), ("value",))
    config = bounded()
    names, x = drawn(3, 900, 90, 0.1)
    expected = scored(Detector(config, model=model), names, x, [])
    detector = Detector(config, model=model)
    first = scored(detector, names[:500], x[:500], [])
    pieces = PartitionSnapshots(_Store(), "t/0", Owner(0, 0), detector, "", []).round(500)
    taken = [next(pieces)]
    scored(detector, names[500:], x[500:], [])  # goes on before the rest is taken
    taken += pieces
    blobs = {piece.name: chunks.pack(piece.content) for piece in taken if isinstance(piece.content, dict)}
    assert len(blobs) > 3
    manifest = chunks.Manifest.from_bytes(taken[-1].content)
    again = Detector(config, model=model)
    chunks.restore(again, manifest, blobs.__getitem__)
    again.rows_of_calls = 500
    rest = scored(again, names[500:], x[500:], [])
    assert_same(expected, {name: np.concatenate([first[name], rest[name]]) for name in FIELDS})


def test_an_episode_of_a_forgotten_stream_is_not_open_any_more() -> None:
    config = bounded() | {"rules": {"maximum": {"value": 10.0}}}
    detector = Detector(config, features=("value",))
    detector.process("hot", 0, [99.0])
    assert [episode.key for episode in detector.open_episodes()] == ["hot"]
    for n in range(BOUND):
        detector.process(f"cold-{n}", n + 1, [1.0])
    assert detector.open_episodes() == []
    assert not detector.pool.rows.marks[: len(detector.pool), OPEN].any()
    assert detector.peek("hot", 99, [1.0]).stage == 0


def test_workers_cannot_share_a_bound(synthetic: Any) -> None:
    model = fit(synthetic(streams=1), Config.model_validate(SMALL | {"training": {"updates": 1}}), ("value",))
    config = Config.model_validate(bounded())
    with pytest.raises(UsageError, match=r"learning\.max_known_streams forgets depends on all of them"):
        Crew(2, config, model, ("value",), ())


@settings(max_examples=60, deadline=None)
@given(
    script=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.lists(st.text(max_size=9), min_size=1, max_size=40)),
            st.tuples(st.just("forget"), st.lists(st.integers(0, 200), min_size=1, max_size=40)),
        ),
        max_size=12,
    )
)
def test_a_key_table_that_forgets_is_a_dict_with_reused_slots(script: list[tuple[str, Any]]) -> None:
    table, known, free, count = KeyTable(), dict[str, int](), list[int](), 0
    for what, given_ in script:
        if what == "forget":
            gone = sorted({known[key] for n, key in enumerate(known) if n in given_})
            table.forget(np.array(gone, np.int32))
            known = {key: slot for key, slot in known.items() if slot not in gone}
            free += gone
            continue
        for key in given_:
            if key not in known:
                if free:
                    known[key] = free.pop(0)
                else:
                    known[key], count = count, count + 1

        assert table.slots(pa.array(given_, pa.string())).tolist() == [known[key] for key in given_]
    assert table.count == count
    for key, slot in known.items():
        assert table.find(key) == slot
        assert table.key(slot) == key
    texts = table.strings().to_pylist()
    assert {texts[slot] for slot in known.values()} == set(known)


def test_keys_without_end_take_no_memory_without_end() -> None:
    table = KeyTable()
    table.slots(pa.array([f"key-{n:09}" for n in range(1000)]))
    for turn in range(1, 200):
        table.forget(np.arange(1000, dtype=np.int32))
        slots = table.slots(pa.array([f"key-{turn:05}-{n:09}" for n in range(1000)]))
        assert slots.tolist() == list(range(1000))
    assert table.key(7) == "key-00199-000000007"
    assert len(table._arena) < 200_000
    assert len(table._table) <= 8192
