"""Files, folders, patterns and standard input as one source."""

import sys
from collections.abc import Callable, Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path, PurePath

from streamlstm.config import schema
from streamlstm.errors import InputError
from streamlstm.sources.assemble import Assembler
from streamlstm.sources.columns import choose, require, time_format
from streamlstm.sources.csv import CsvReader
from streamlstm.sources.jsonl import JsonLinesReader
from streamlstm.sources.lines import COMPRESSIONS, DamagedError, LineBlocks
from streamlstm.sources.parquet import ParquetReader
from streamlstm.sources.protocol import NoRowsError, Reader, Report, Sample, Wanted
from streamlstm.sources.times import NAMES, TimeFormat
from streamlstm.types import DeadLetter, EventBatch

STDIN = "-"
STDIN_NAME = "stdin"
LINE_READERS: dict[str, type[CsvReader] | type[JsonLinesReader]] = {
    ".csv": CsvReader,
    ".jsonl": JsonLinesReader,
    ".ndjson": JsonLinesReader,
    ".json": JsonLinesReader,
}
PARQUET = ".parquet"
KNOWN = f"{', '.join((*LINE_READERS, PARQUET))}; the former also with {' or '.join(COMPRESSIONS)}"


def open_files(
    inputs: Sequence[str],
    settings: schema.Input,
    *,
    batch_rows: int = 65_536,
    label: str | None = None,
    on_dead_letter: Callable[[DeadLetter], None],
    on_note: Callable[[str], None],
) -> "FileSource":
    """All records of `inputs` (files, folders, patterns, `-`) in the order of the paths; see `FileSource`."""
    return FileSource(expand(inputs), settings, batch_rows, label, on_dead_letter, on_note)


def expand(inputs: Sequence[str]) -> tuple[str, ...]:
    """Paths of the files that `inputs` mean, sorted, each once; InputError for an input that means none."""
    found: dict[Path | str, str] = {}
    for text in inputs:
        for path in (STDIN,) if text == STDIN else _matches(text):
            found.setdefault(path if path == STDIN else Path(path).resolve(), path)
    if not found:
        raise InputError("no input: name files, folders, patterns, or - for standard input")
    return tuple(sorted(found.values()))


def _matches(text: str) -> list[str]:
    path = Path(text)
    if path.is_dir():
        files = [str(file) for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
        what = "folder holds no file that can be read"
    elif path.exists():
        if _kind(text) is None:
            raise InputError(f"{text}: unknown kind of file {path.suffix!r}; known are {KNOWN}")
        return [text]
    elif has_magic(text):
        files = [file for file in glob(text, recursive=True) if Path(file).is_file()]  # noqa: PTH207, absolute too
        what = "pattern matches no file that can be read"
    else:
        raise InputError(f"{text}: no such file or folder; check the path")
    known = [file for file in files if _kind(file) is not None]
    if not known:
        raise InputError(f"{text}: the {what}; known are {KNOWN}")
    return known


def _kind(path: str) -> str | None:
    """The suffix that says the format, without that of the compression; None if it is unknown."""
    name = PurePath(path)
    suffix = name.suffix.lower()
    if suffix == PARQUET:
        return suffix
    if suffix in COMPRESSIONS:
        suffix = PurePath(name.stem).suffix.lower()
    return suffix if suffix in LINE_READERS else None


def _file_key(path: str) -> str:
    """The stream that a file without a key column is: its name without what says format and compression."""
    name = PurePath(path)
    return PurePath(name.stem).stem if name.suffix.lower() in COMPRESSIONS else name.stem


class FileSource:
    """Records of files, read one after the other; a `Source`.

    The first file that has records fixes `columns`. `infinities` counts infinite values, which are read as missing.
    Can be iterated again, except over standard input.
    """

    def __init__(
        self,
        paths: Sequence[str],
        settings: schema.Input,
        batch_rows: int,
        label: str | None,
        on_dead_letter: Callable[[DeadLetter], None],
        on_note: Callable[[str], None],
    ) -> None:
        self.infinities = 0
        self._paths = tuple(paths)
        self._settings = settings
        self._batch_rows = batch_rows
        self._on_dead_letter = on_dead_letter
        self._on_note = on_note
        self._said: set[str] = set()
        self._sizes = [0 if path == STDIN else Path(path).stat().st_size for path in paths]
        self._done = 0
        self._reader: Reader | None = None
        self._stdin_opened = False
        self._start, (reader, sample) = self._first_with_rows()
        self._opened: tuple[Reader, Sample] | None = (reader, sample)
        source = _name(paths[self._start])
        self._say(*sample.notes)
        self.columns = choose(sample, source, settings, label, self._say)
        self._time_format(sample, source)  # says the format, or that there is none, before the first record

    def __iter__(self) -> Iterator[EventBatch]:
        self.infinities = 0
        self._done = 0
        for path, size in list(zip(self._paths, self._sizes, strict=True))[self._start :]:
            try:
                reader, sample = self._opened or self._open(path)
            except NoRowsError as error:
                self._say(f"{error}: skipped")
                continue
            self._opened = None
            self._reader = reader
            yield from self._batches(path, reader, sample)
            self._reader = None
            self._done += reader.progress() if path == STDIN else size

    @property
    def paths(self) -> tuple[str, ...]:
        """The files in the order in which they are read, `-` for standard input."""
        return self._paths

    def progress(self) -> tuple[int, int]:
        """Bytes read of the files as they lie on disk, and all their bytes; the latter is 0 with standard input."""
        done = self._done + (0 if self._reader is None else self._reader.progress())
        return done, 0 if STDIN in self._paths else sum(self._sizes)

    def _batches(self, path: str, reader: Reader, sample: Sample) -> Iterator[EventBatch]:
        source = _name(path)
        require(self.columns, sample, source)
        self._say(*sample.notes)
        wanted = Wanted(self.columns, self._time_format(sample, source))
        assembler = Assembler(wanted, source, _file_key(source), self._report(source))
        try:
            for block in reader.blocks(wanted):
                before = assembler.infinities
                for batch in assembler.batches(block, self._batch_rows):
                    self.infinities += assembler.infinities - before
                    before = assembler.infinities
                    yield batch
        except DamagedError as error:
            raise _damage(path, reader.rows, error) from error

    def _first_with_rows(self) -> tuple[int, tuple[Reader, Sample]]:
        for index, path in enumerate(self._paths):
            try:
                return index, self._open(path)
            except NoRowsError as error:
                if len(self._paths) == 1:
                    raise
                self._say(f"{error}: skipped")
        names = ", ".join(self._paths[:3]) + (", ..." if len(self._paths) > 3 else "")
        raise InputError(f"none of the {len(self._paths)} files has a row: {names}")

    def _open(self, path: str) -> tuple[Reader, Sample]:
        reader = self._stdin() if path == STDIN else self._file(path)
        try:
            return reader, reader.sample()
        except DamagedError as error:
            raise _damage(path, 0, error) from error

    def _file(self, path: str) -> Reader:
        suffix = _kind(path)
        if suffix is None or suffix == PARQUET:
            return ParquetReader(path, self._batch_rows)
        return LINE_READERS[suffix](LineBlocks.open(path), path, self._report(path))

    def _stdin(self) -> Reader:
        if self._stdin_opened:
            raise InputError("standard input can be read only once; save it to a file to read it again")
        self._stdin_opened = True
        lines = LineBlocks(sys.stdin.buffer, STDIN_NAME, pipe=True)
        kind = JsonLinesReader if lines.first_byte() == b"{" else CsvReader
        return kind(lines, STDIN_NAME, self._report(STDIN_NAME))

    def _time_format(self, sample: Sample, source: str) -> TimeFormat | None:
        found = time_format(self.columns, sample, source, self._settings)
        if found is not None and found.detected:
            self._say(f"{self.columns.time}: {NAMES[found.kind]}")
        return found

    def _report(self, source: str) -> Report:
        return lambda line, reason, text: self._on_dead_letter(DeadLetter(source, line, reason, text))

    def _say(self, *notes: str) -> None:
        for note in notes:
            if note not in self._said:
                self._said.add(note)
                self._on_note(note)


def _name(path: str) -> str:
    return STDIN_NAME if path == STDIN else path


def _damage(path: str, rows: int, error: DamagedError) -> InputError:
    what = COMPRESSIONS.get(PurePath(path).suffix.lower(), _kind(path) or "stream")
    return InputError(f"{_name(path)}: damaged or truncated {what} after {rows} rows ({error}); copy or write it again")
