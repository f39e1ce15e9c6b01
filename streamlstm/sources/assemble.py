"""From a block of cells to `EventBatch`: the one place where a record is accepted or becomes a dead letter."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamlstm.sources.numbers import floats
from streamlstm.sources.protocol import Block, QuickBlock, Report, Wanted
from streamlstm.sources.times import complaint, nanoseconds
from streamlstm.types import NO_TIME, EventBatch, Float64, Int64

Mask = npt.NDArray[np.bool_]
KEYS = pa.dictionary(pa.int32(), pa.string())


class Assembler:
    """Makes batches of one file's blocks. `infinities` counts the infinite values that became missing."""

    def __init__(self, wanted: Wanted, source: str, file_key: str, report: Report) -> None:
        self.infinities = 0
        self._wanted = wanted
        self._source = source
        self._file_key = pa.array([file_key], pa.string())
        self._report = report

    def batches(self, block: Block | QuickBlock, batch_rows: int) -> Iterator[EventBatch]:
        """The good records of `block`, at most `batch_rows` at a time."""
        size = len(block.row)
        faults = _Faults(size)
        time = self._times(block, faults)
        keys = self._keys(block, size, faults)
        x = self._inputs(block, size, faults)
        label = self._labels(block, faults)
        if faults.any:
            if isinstance(block, QuickBlock):
                yield from self.batches(block.careful(), batch_rows)
                return
            faults.tell(block, self._report)
            keep = np.flatnonzero(~faults.bad)
            time, x, row = time[keep], x[keep], block.row[keep]
            label = None if label is None else label[keep]
            keys = keys.take(pa.array(keep))
            size = len(keep)
        else:
            row = block.row
        infinite = np.isinf(x)
        if infinite.any():
            self.infinities += int(np.count_nonzero(infinite))
            x[infinite] = np.nan
        for begin in range(0, size, batch_rows):
            part = slice(begin, min(begin + batch_rows, size))
            flags = None if label is None else label[part]
            yield EventBatch(keys[part], time[part], x[part], row[part], self._source, flags)

    def _times(self, block: Block | QuickBlock, faults: "_Faults") -> Int64:
        name, time_format = self._wanted.columns.time, self._wanted.time_format
        if name is None or time_format is None:
            return np.full(len(block.row), NO_TIME, np.int64)
        cells = block.columns[name]
        times, bad = nanoseconds(cells, time_format)
        faults.add(bad, lambda at: f"column {name!r}: {complaint(_text(cells[at]), time_format)}")
        return times

    def _keys(self, block: Block | QuickBlock, size: int, faults: "_Faults") -> pa.DictionaryArray:
        name = self._wanted.columns.key
        if name is None:
            return pa.DictionaryArray.from_arrays(pa.array(np.zeros(size, np.int32)), self._file_key)
        keys = _encoded(block.columns[name])
        empty = pc.index(keys.dictionary, "").as_py()
        bad = keys.indices.fill_null(empty).to_numpy() == empty
        faults.add(bad, lambda at: f"column {name!r}: has no key; the key says which stream a record belongs to")
        return keys

    def _inputs(self, block: Block | QuickBlock, size: int, faults: "_Faults") -> Float64:
        columns = self._wanted.columns
        names = columns.features + columns.exogenous
        x = np.empty((size, len(names)), np.float64)  # (B, I)
        for place, name in enumerate(names):
            x[:, place] = self._numbers(block, name, faults)
        return x

    def _numbers(self, block: Block | QuickBlock, name: str, faults: "_Faults") -> Float64:
        cells = block.columns[name]
        values, bad = floats(cells)
        if bad is not None:
            faults.add(bad, lambda at: f"column {name!r}: {_text(cells[at])!r} is not a number")
        return values

    def _labels(self, block: Block | QuickBlock, faults: "_Faults") -> npt.NDArray[np.uint8] | None:
        name = self._wanted.columns.label
        if name is None:
            return None
        values = self._numbers(block, name, faults)
        bad = (values != 0.0) & (values != 1.0)
        cells = block.columns[name]
        faults.add(bad, lambda at: f"column {name!r}: the label is {_text(cells[at])!r}; it must be 0 or 1")
        return np.where(bad, 0.0, values).astype(np.uint8)


class _Faults:
    """Which of B records are bad, and why; the first reason of a record counts."""

    def __init__(self, size: int) -> None:
        self.bad: Mask = np.zeros(size, np.bool_)
        self.any = False
        self._reasons: list[tuple[Mask, Callable[[int], str]]] = []

    def add(self, bad: Mask, reason: Callable[[int], str]) -> None:
        """Marks records; `reason` makes the words for a position."""
        if bad.any():
            self.any = True
            self.bad |= bad
            self._reasons.append((bad, reason))

    def tell(self, block: Block, report: Report) -> None:
        """Reports the bad records in their order."""
        for at in map(int, np.flatnonzero(self.bad)):
            reason = next(words for bad, words in self._reasons if bad[at])
            line, text = block.locate(at)
            report(line, reason(at), text)


def _encoded(cells: pa.Array) -> pa.DictionaryArray:
    if pa.types.is_dictionary(cells.type):
        return cells.cast(KEYS)
    return cells.cast(pa.string()).dictionary_encode()


def _text(cell: pa.Scalar) -> str | None:
    value = cell.as_py()
    return None if value is None else str(value)
