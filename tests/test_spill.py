"""Rows that go to a file and come back: against rows that never left memory."""

import gc
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.errors import OutputError, StateError, UsageError
from streamlstm.kernels.arguments import Pool
from streamlstm.kernels.layout import LAST_ROW, MARKS
from streamlstm.state.spill import Residents

STATE, STATS = 5, 3


def some_rows(count: int, seed: int) -> Pool:
    """Rows of any bits at all: NaN with payloads, infinities, negative zero."""
    bits = np.random.default_rng(seed).integers
    state = bits(0, 2**32, (count, STATE), np.uint32).view(np.float32)
    stats = bits(0, 2**64, (count, STATS), np.uint64).view(np.float64)
    return Pool(state, stats, bits(-(2**63), 2**63 - 1, (count, MARKS)))


def same(actual: Pool, expected: Pool) -> bool:
    return all(a.tobytes() == e.tobytes() for a, e in zip(actual, expected, strict=True))


def write(residents: Residents, rows: np.ndarray, values: Pool) -> None:
    for to, of in zip(residents.rows, values, strict=True):
        to[rows] = of


def part(rows: Pool, at: np.ndarray | slice) -> Pool:
    return Pool(*(of[at] for of in rows))


def filled(count: int, limit: int, folder: Path | None = None) -> tuple[Residents, Pool]:
    """Streams 0 .. count, each in a batch of its own, the last row of stream s is s; and all their rows."""
    residents, expected = Residents(STATE, STATS, limit, folder), some_rows(count, 1)
    expected.marks[:, LAST_ROW] = np.arange(count)
    for stream in range(count):
        rows, new = residents.rows_for(np.array([stream], np.int32))
        assert new.tolist() == [stream]
        write(residents, rows, part(expected, slice(stream, stream + 1)))
    return residents, expected


def resident(residents: Residents, count: int) -> list[int]:
    """Streams in memory: those whose row changes where all rows in memory are overwritten."""
    before = residents.read(np.arange(count, dtype=np.int32)).marks[:, LAST_ROW].copy()
    kept = residents.rows.marks.copy()
    residents.rows.marks[:] = -7
    after = residents.read(np.arange(count, dtype=np.int32)).marks[:, LAST_ROW]
    residents.rows.marks[:] = kept
    return np.flatnonzero(before != after).tolist()


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 40),
    adopted=st.integers(0, 60),
    batches=st.lists(st.lists(st.integers(0, 90), max_size=30), max_size=25),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_row_comes_back_bit_for_bit(limit: int, adopted: int, batches: list[list[int]], seed: int) -> None:
    residents = Residents(STATE, STATS, limit)
    kept = some_rows(adopted, seed)
    residents.adopt(np.arange(adopted, dtype=np.int32), kept)
    expected = Pool(*(np.concatenate([of, np.zeros((91 - adopted, of.shape[1]), of.dtype)]) for of in kept))
    seen = set(range(adopted))
    for n, batch in enumerate(batches):
        streams = np.array(batch, np.int32)
        while len(streams):
            taken = residents.fits(streams)
            now, streams = streams[:taken], streams[taken:]
            rows, new = residents.rows_for(now)
            distinct, firsts = np.unique(now, return_index=True)
            assert len(distinct) <= limit
            assert len(streams) == 0 or len({*distinct, streams[0]}) > limit
            assert new.tolist() == sorted(set(now.tolist()) - seen)
            seen |= set(now.tolist())
            assert len(np.unique(rows)) == len(distinct)
            assert len(residents.rows.state) <= limit
            assert same(part(residents.rows, rows), part(expected, now))
            values = some_rows(len(distinct), seed + n)
            write(residents, rows[firsts], values)
            for to, of in zip(expected, values, strict=True):
                to[distinct] = of
    every = np.random.default_rng(seed).permutation(np.array([*seen, *seen], np.int32))
    assert same(residents.read(every), part(expected, every))


def test_the_longest_idle_go_out_and_of_equals_the_first_stream() -> None:
    residents, expected = filled(8, 8)
    residents.rows.marks[residents.rows_for(np.arange(8, dtype=np.int32))[0], LAST_ROW] = [5, 2, 9, 2, 1, 7, 2, 8]
    residents.rows_for(np.array([8, 9, 4], np.int32))  # stream 4 is in the batch and stays, although it idled longest
    assert resident(residents, 10) == [0, 2, 4, 5, 6, 7, 8, 9]
    assert expected.marks[4, LAST_ROW] == 4


def test_a_limit_may_change() -> None:
    residents, expected = filled(50, 20)
    residents.limit = 5
    residents.rows_for(np.array([0], np.int32))
    assert resident(residents, 50) == [0, 46, 47, 48, 49]
    residents.limit = 60
    everyone = np.arange(50, dtype=np.int32)
    rows, new = residents.rows_for(everyone)
    assert len(new) == 0
    assert same(part(residents.rows, rows), expected)


def test_reading_moves_nothing_and_shares_no_memory() -> None:
    residents, expected = filled(30, 10)
    everyone = np.arange(30, dtype=np.int32)
    before = resident(residents, 30)
    copies = residents.read(everyone)
    assert same(copies, expected)
    for of in copies:
        of[:] = 0
    assert same(residents.read(everyone), expected)
    assert resident(residents, 30) == before


def test_a_batch_of_too_many_streams_moves_nothing() -> None:
    residents, expected = filled(30, 10)
    before = resident(residents, 30)
    streams = np.arange(11, dtype=np.int32)
    assert residents.fits(streams) == 10
    with pytest.raises(UsageError, match=r"runtime\.max_streams: a batch of 11 streams .* got 10; set it higher"):
        residents.rows_for(streams)
    assert resident(residents, 30) == before
    assert same(residents.read(np.arange(30, dtype=np.int32)), expected)


def test_the_file_has_no_name_and_is_closed_with_its_rows(tmp_path: Path) -> None:
    def open_files() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = open_files()
    residents, _ = filled(200, 64, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert open_files() == before + 1
    del residents
    assert open_files() == before


def test_a_full_disk_is_said_and_loses_no_row(tmp_path: Path) -> None:
    residents, expected = filled(64, 64, tmp_path)
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, allowed[1]))  # the interpreter ignores its signal
    try:
        with pytest.raises(
            OutputError, match=rf"spill file in {tmp_path}: cannot write: .*runtime\.max_streams, now 64"
        ):
            residents.rows_for(np.array([64], np.int32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert same(residents.read(np.arange(64, dtype=np.int32)), expected)
    assert residents.rows_for(np.array([64], np.int32))[1].tolist() == [64]
    assert same(residents.read(np.arange(64, dtype=np.int32)), expected)


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match="absent: cannot write: No such file or directory; make room there, name another"
    ):
        Residents(STATE, STATS, 64, tmp_path / "absent")


def test_a_file_that_someone_cut_is_said() -> None:
    residents, _ = filled(30, 10)
    os.truncate(residents._file, 100)
    with pytest.raises(StateError, match="ends before its rows; restart from the last snapshot"):
        residents.read(np.arange(30, dtype=np.int32))
