"""The rows of a pool in the memory of a GPU: written when streams begin or are restored, read for snapshots."""

from typing import Any

import numpy as np

from streamlstm.errors import DeviceError
from streamlstm.kernels.arguments import Pool
from streamlstm.kernels.cuda.memory import DeviceArray, free_bytes, gather, new_stream, scatter
from streamlstm.kernels.layout import MARKS
from streamlstm.types import Int32

_LEAST = 1024
_SPARE = 0.8
"""Of the free memory that rows may take when they grow: scratch needs some, too."""


class DeviceRows:
    """Rows by slot in three flat arrays, see `kernels.layout`; there is room for `room` of them."""

    def __init__(self, state_width: int, stats_width: int) -> None:
        self._widths = state_width, stats_width, MARKS
        self.state, self.stats, self.marks = (DeviceArray(dtype) for dtype in (np.float32, np.float64, np.int64))
        self.room = 0
        self._stream = new_stream()

    @classmethod
    def of(cls, rows: Pool) -> "DeviceRows":
        """A copy of rows in the host's memory."""
        made = cls(rows.state.shape[1], rows.stats.shape[1])
        slots = np.arange(len(rows.state), dtype=np.int32)
        made.reserve(len(slots))
        made.write(slots, rows)
        return made

    def reserve(self, count: int) -> None:
        """Room for `count` rows, doubled as it grows; DeviceError, with nothing changed, where the memory is too small."""
        if count <= self.room:
            return
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
            array.reserve(room * wide, keep=self.room * wide, stream=self._stream)
        self._stream.synchronize()
        self.room = room

    def write(self, slots: Int32, rows: Pool) -> None:
        """Writes whole rows."""
        for (_, array), values in zip(self._arrays(), _columns(rows), strict=True):
            scatter(array, slots, values, self._stream)

    def read(self, slots: Int32) -> Pool:
        """Copies of rows."""
        return Pool(*(gather(array, slots, wide, self._stream) for wide, array in self._arrays()))

    def _arrays(self) -> list[tuple[int, DeviceArray]]:
        return list(zip(self._widths, (self.state, self.stats, self.marks), strict=True))


def _columns(rows: Pool) -> tuple[Any, ...]:
    return rows
