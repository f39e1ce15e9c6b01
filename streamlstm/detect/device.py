"""The engine whose compiled call runs on a GPU; weights are frozen there."""

from typing import Any

import numpy as np

from streamlstm.config import Config
from streamlstm.detect.engine import Engine
from streamlstm.kernels.arguments import Out, Pool, Records
from streamlstm.kernels.cuda.machine import Machine
from streamlstm.kernels.layout import STATE_WIDTH, STATS_WIDTH
from streamlstm.model.layout import Layout
from streamlstm.model.network import Model
from streamlstm.state.device import DeviceRows
from streamlstm.types import Float64, Int32, Int64


class DeviceEngine(Engine):
    """Like `Engine`, on rows in the device's memory; rows of the host are copied there and back."""

    arithmetic = "cuda"

    def __init__(self, config: Config, layout: Layout, model: Model) -> None:
        super().__init__(config, layout, model, connect=False)
        self._machine = Machine(layout.cell, self.sizes, layout.params, self.weights, self.usual)
        self._visitors = device_rows(layout)

    def start_threads(self, rows: Any, threads: int) -> None:
        """A GPU needs none."""

    def arguments(
        self, rows: Any, slots: Int32, time: Int64, x: Float64, row: Int64, out: Out, *,
        detail: bool, threads: int = 1, learn: bool = True,
    ) -> tuple[Any, ...]:  # fmt: skip
        """What `call` takes for these arrays."""
        return rows, slots, time, x, row, out, int(detail)

    def call(self, arguments: tuple[Any, ...], source: int, *, threads: int = 1, learn: bool = True) -> None:
        """The call on the device, for records of `source` (its number)."""
        rows, slots, time, x, row, out, detail = arguments
        records = Records(slots, time, x, row, source, detail, 0)
        if not isinstance(rows, Pool):
            self._machine.score(rows, records, out)
            return
        visitors, numbers = self._visitors, np.arange(len(rows.state), dtype=np.int32)
        visitors.reserve(len(numbers))
        visitors.write(numbers, rows)
        self._machine.score(visitors, records, out)
        new = visitors.read(numbers)
        rows.state[:], rows.stats[:], rows.marks[:] = new.state, new.stats, new.marks


def device_rows(layout: Layout) -> DeviceRows:
    """No rows yet, of this layout."""
    return DeviceRows(int(layout.sizes[STATE_WIDTH]), int(layout.sizes[STATS_WIDTH]))
