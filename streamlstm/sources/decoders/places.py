"""What stands at each place of a record without names: `messages.columns` as the kernels want it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

import numpy as np

from streamlstm.config.schema import Input
from streamlstm.errors import ConfigError
from streamlstm.kernels.decode.places import IGNORED, KEY, TIME
from streamlstm.sources.decoders.cells import UnfitError, joined_key, key_names, key_of_record, time_of_record
from streamlstm.sources.decoders.protocol import Draft, Event
from streamlstm.types import Columns, Int32, Int64, RawBlock

Cell = TypeVar("Cell")


@dataclass(frozen=True, slots=True)
class Places:
    """The places of a record, by name and as numbers of `kernels/decode/places.py`.

    names   of all places, in their order
    codes   int32 (C), what each place means
    inputs  features, then exogenous columns
    keys    fields that make the key, none where it is the record's own
    parts   int64 (P, 3), scratch of the kernels for a key of P parts
    """

    names: tuple[str, ...]
    columns: Columns
    codes: Int32
    inputs: tuple[str, ...]
    keys: tuple[str, ...]
    parts: Int64

    @classmethod
    def of(cls, settings: Input, names: tuple[str, ...]) -> "Places":
        """The places that `names` lists; ConfigError where a wanted column is not among them, or is there twice."""
        keys, inputs = key_names(settings), (*settings.features, *settings.exogenous)
        codes = {name: place for place, name in enumerate(inputs)}
        codes |= {name: KEY - part for part, name in enumerate(keys)}
        codes |= {} if settings.time is None else {settings.time: TIME}
        for name in codes:
            if names.count(name) != 1:
                raise ConfigError(f"config: messages.columns: {_complaint(name, names)}")
        return cls(
            names,
            Columns(settings.time, "/".join(keys) or None, settings.features, settings.exogenous),
            np.array([codes.get(name, IGNORED) for name in names], np.int32),
            inputs,
            keys,
            np.zeros((len(keys), 3), np.int64),
        )

    def by_name(self, cells: Sequence[Cell], what: str) -> dict[str, Cell]:
        """The cells of one record by the names of their places; UnfitError unless there is one for each."""
        if len(cells) != len(self.names):
            raise UnfitError(f"has {len(cells)} {what}; messages.columns names {len(self.names)}")
        return dict(zip(self.names, cells, strict=True))

    def event(
        self,
        block: RawBlock,
        at: int,
        cells: Mapping[str, Cell],
        number: Callable[[str, Cell], float],
        time: Callable[[str, Cell], int],
        part: Callable[[Cell], str | None],
    ) -> Event:
        """The record at a position of `block` from its cells, whose meanings the functions say; UnfitError if one has none."""
        timed = self.columns.time
        when = time_of_record(block, at) if timed is None else time(timed, cells[timed])
        key = (
            joined_key(self.keys, [part(cells[name]) for name in self.keys]) if self.keys else key_of_record(block, at)
        )
        return Event(when, tuple(number(name, cells[name]) for name in self.inputs), key)

    def draft(self, block: RawBlock) -> Draft:
        """Columns for the records of a block, to be filled."""
        return Draft.of(block, len(self.inputs), len(self.keys))


def _complaint(name: str, names: tuple[str, ...]) -> str:
    if name in names:
        return f"column {name!r} stands at {names.count(name)} places; each column has one"
    near = get_close_matches(name, names, 1)
    nearest = f"; nearest: {near[0]!r}" if near else ""
    return f"the input wants column {name!r}, which stands at no place; the columns are {', '.join(names)}{nearest}"
