"""Records whose values are lines of CSV (RFC 4180). Cells mean what they mean in files."""

from streamlstm.config.schema import Input
from streamlstm.errors import ConfigError
from streamlstm.kernels.decode.delimited import decode_delimited
from streamlstm.kernels.decode.times import UNITS
from streamlstm.sources.decoders.cells import UnfitError, number_of_text, time_of_text
from streamlstm.sources.decoders.places import Places
from streamlstm.sources.decoders.protocol import Event, OnDeadLetter, bytes_of, finish
from streamlstm.types import EventBatch, RawBlock

_FORBIDDEN = '"\r\n'


class DelimitedDecoder:
    """Values that are one line of exactly as many cells as there are columns; see `protocol.Decoder`."""

    def __init__(self, settings: Input, names: tuple[str, ...], separator: str) -> None:
        if not separator.isascii() or separator in _FORBIDDEN:
            raise ConfigError(
                f"config: messages.separator: must be an ASCII character that is no quote and no line break, "
                f"got {separator!r}"
            )
        self._places = Places.of(settings, names)
        self._separator = separator
        self._unit = settings.time_unit
        self.columns = self._places.columns
        self.infinities = 0

    def decode(self, block: RawBlock, on_dead_letter: OnDeadLetter) -> EventBatch:
        places, draft = self._places, self._places.draft(block)
        decode_delimited(
            bytes_of(block), block.keys, block.values, block.timestamp, ord(self._separator), places.codes,
            UNITS.index(self._unit), places.parts,
            draft.time, draft.x, draft.key_bytes, draft.key_ends, draft.code,
        )  # fmt: skip
        batch, infinities = finish(block, draft, lambda at: self._careful(block, at), on_dead_letter)
        self.infinities += infinities
        return batch

    def _careful(self, block: RawBlock, at: int) -> Event | str:
        try:
            cells = self._places.by_name(self._cells(block.value(at)), "cells")
            return self._places.event(block, at, cells, number_of_text, self._time, str)
        except UnfitError as error:
            return str(error)

    def _time(self, name: str, cell: str) -> int:
        return time_of_text(name, cell, self._unit)

    def _cells(self, value: bytes | None) -> list[str]:
        if value is None:
            raise UnfitError("has no value")
        try:
            line = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UnfitError(f"is not UTF-8 text ({error.reason} at byte {error.start})") from None
        return split(line.removesuffix("\n").removesuffix("\r") if line.endswith("\n") else line, self._separator)


def split(line: str, separator: str) -> list[str]:
    """The cells of a line without its line break; UnfitError where its quotes do not fit or it is more than one line."""
    cells, at = [], 0
    while True:
        if line.startswith('"', at):
            cell, at = _quoted(line, at)
            if at < len(line) and line[at] != separator:
                raise UnfitError(f"is not CSV: text after the closing quote at character {at + 1}")
        else:
            end = line.find(separator, at)
            cell, at = (line[at:], len(line)) if end < 0 else (line[at:end], end)
            if "\n" in cell or "\r" in cell:
                raise UnfitError("holds more than one line; a line break in a cell must be in quotes")
        cells.append(cell)
        if at == len(line):
            return cells
        at += 1


def _quoted(line: str, at: int) -> tuple[str, int]:
    """The cell whose opening quote stands at `at`, and the place after its closing one."""
    pieces, start = [], at + 1
    while True:
        end = line.find('"', start)
        if end < 0:
            raise UnfitError(f"is not CSV: no quote closes the one at character {at + 1}")
        pieces.append(line[start:end])
        if not line.startswith('"', end + 1):
            return '"'.join(pieces), end + 1
        start = end + 2
