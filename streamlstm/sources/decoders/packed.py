"""Records whose values are packed little-endian float32 or float64; NaN is missing."""

import math

import numpy as np

from streamlstm.config.schema import Input
from streamlstm.errors import ConfigError
from streamlstm.kernels.decode.packed import decode_packed, scaled_time
from streamlstm.sources.decoders.cells import UnfitError
from streamlstm.sources.decoders.places import Places
from streamlstm.sources.decoders.protocol import Event, OnDeadLetter, bytes_of, finish
from streamlstm.sources.times import DECIMALS
from streamlstm.types import NO_TIME, EventBatch, RawBlock


class PackedDecoder:
    """Values of one float32 or float64 per column and nothing else; see `protocol.Decoder`.

    Without names the features stand first, then the exogenous columns. The key is the record's.
    """

    def __init__(self, settings: Input, names: tuple[str, ...], width: int) -> None:
        if settings.key is not None:
            raise ConfigError(
                f"config: input.key: packed numbers hold no key, got {settings.key!r}; "
                "leave it out, and the key of each record says which stream it belongs to"
            )
        if settings.time is not None and settings.time_unit in ("auto", "iso"):
            raise ConfigError(
                f"config: input.time_unit: the unit of a packed time must be one of: s, ms, us, ns; "
                f"got {settings.time_unit!r}"
            )
        self._places = Places.of(settings, names or (*settings.features, *settings.exogenous))
        self._type = np.dtype(f"<f{width}")
        self._factor = 1 if settings.time is None else 10 ** DECIMALS[settings.time_unit]  # type: ignore[index]
        self.columns = self._places.columns
        self.infinities = 0

    def decode(self, block: RawBlock, on_dead_letter: OnDeadLetter) -> EventBatch:
        places, draft = self._places, self._places.draft(block)
        decode_packed(
            bytes_of(block), block.keys, block.values, block.timestamp, self._type.itemsize, places.codes, self._factor,
            draft.time, draft.x, draft.key_bytes, draft.key_ends, draft.code,
        )  # fmt: skip
        batch, infinities = finish(block, draft, lambda at: self._careful(block, at), on_dead_letter)
        self.infinities += infinities
        return batch

    def _careful(self, block: RawBlock, at: int) -> Event | str:
        try:
            values = self._values(block.value(at))
            return self._places.event(block, at, values, lambda name, value: value, self._time, str)
        except UnfitError as error:
            return str(error)

    def _values(self, value: bytes | None) -> dict[str, float]:
        if value is None:
            raise UnfitError("has no value")
        size = len(self._places.names) * self._type.itemsize
        if len(value) != size:
            raise UnfitError(f"has {len(value)} bytes; {len(self._places.names)} of {self._type.name} are {size}")
        return self._places.by_name(np.frombuffer(value, self._type).tolist(), "numbers")

    def _time(self, name: str, value: float) -> int:
        if math.isnan(value):
            raise UnfitError(f"column {name!r}: has no time")
        time = int(scaled_time(value, self._factor))
        if time == NO_TIME:
            raise UnfitError(f"column {name!r}: {value!r} is no time between the years 1678 and 2261")
        return time
