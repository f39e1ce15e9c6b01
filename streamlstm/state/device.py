"""The rows of a pool in the memory of a GPU: written when streams begin or are restored, read for snapshots."""

from typing import Any

import numpy as np

from streamlstm.errors import DeviceError
from streamlstm.kernels.arguments import Pool
from streamlstm.kernels.cuda.memory import DeviceArray, Mover, device_errors, free_bytes, new_stream
from streamlstm.kernels.layout import MARKS
from streamlstm.types import Int32

_LEAST = 1024
_SPARE = 0.8
"""Of the free memory that rows may take when they grow: scratch needs some, too."""
_PIECE = 16_384
"""Rows that are copied at once by their numbers, which takes memory of the device."""


class DeviceRows:
    """Rows by slot in three flat arrays, see `kernels.layout`; there is room for `room` of them."""

    def __init__(self, state_width: int, stats_width: int) -> None:
        with device_errors("begin a pool"):
            self._widths = state_width, stats_width, MARKS
            self.state, self.stats, self.marks = (DeviceArray(of) for of in (np.float32, np.float64, np.int64))
            self.room = 0
            self._stream = new_stream()
            self._mover = Mover(self._stream)

    def reserve(self, count: int) -> None:
        """Room for `count` rows, doubled as it grows; DeviceError, with nothing changed, where the memory is too small."""
        if count <= self.room:
            return
        with device_errors("make room for streams"):
            each = sum(wide * array.dtype.itemsize for wide, array in self._arrays())
            fit = int(_SPARE * free_bytes()) // each  # beside the old rows, which are copied
            room = min(max(_LEAST, 1 << (count - 1).bit_length()), fit)
            if room < count:
                raise DeviceError(
                    f"cuda: {count:,} streams of {each:,} bytes are one growth too many, {max(fit, self.room):,} fit in the "
                    "device's memory; set learning.max_known_streams, divide the streams among more devices, or use "
                    "runtime.backend: cpu"
                )
            for wide, array in self._arrays():
                array.reserve(room * wide, keep=self.room * wide)
            self.room = room

    def write(self, slots: Int32, rows: Pool) -> None:
        """Writes whole rows."""
        with device_errors("write the state of streams"):
            columns: tuple[Any, ...] = rows
            for (wide, array), values in zip(self._arrays(), columns, strict=True):
                if _consecutive(slots):
                    given = np.ascontiguousarray(values).reshape(-1)
                    array.put(given, self._stream, first=int(slots[0]) * wide)
                    self._stream.synchronize()
                    continue
                for at in range(0, len(slots), _PIECE):
                    self._mover.scatter(array, slots[at : at + _PIECE], values[at : at + _PIECE])

    def read(self, slots: Int32) -> Pool:
        """Copies of rows."""
        with device_errors("read the state of streams"):
            return Pool(*(self._read(array, slots, wide) for wide, array in self._arrays()))

    def _read(self, array: DeviceArray, slots: Int32, wide: int) -> Any:
        if _consecutive(slots):
            out = np.empty((len(slots), wide), array.dtype)
            array.get(out.reshape(-1), self._stream, first=int(slots[0]) * wide)
            self._stream.synchronize()
            return out
        pieces = [self._mover.gather(array, slots[at : at + _PIECE], wide) for at in range(0, len(slots), _PIECE)]
        return np.concatenate([np.empty((0, wide), array.dtype), *pieces])

    def _arrays(self) -> list[tuple[int, DeviceArray]]:
        return list(zip(self._widths, (self.state, self.stats, self.marks), strict=True))


def _consecutive(slots: Int32) -> bool:
    """Whether the slots follow each other, as those of new streams and of a snapshot do."""
    return len(slots) > 0 and bool((np.diff(slots) == 1).all())
