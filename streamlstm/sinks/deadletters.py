"""Records that could not be read, kept as JSON lines."""

import json
import os
from io import FileIO
from pathlib import Path

from streamlstm.sinks.failures import named
from streamlstm.types import DeadLetter


class DeadLetterFile:
    """Call it with each dead letter: appends `source, line, reason, text`. No letter, no file.

    Letters of earlier runs stay. Each letter is in the file when the call returns. Of a topic's record `text` is the
    whole value, and there is a `key` if it had one: `.encode(errors="surrogateescape")` gives back their bytes.
    """

    def __init__(self, path: str) -> None:
        self.count = 0
        self._path = path
        self._file: FileIO | None = None

    def __call__(self, letter: DeadLetter) -> None:
        """Appends the letter."""
        text = letter.text if letter.value is None else _text(letter.value)
        fields = {"source": letter.source, "line": letter.line, "reason": letter.reason, "text": text}
        if letter.key is not None:
            fields["key"] = _text(letter.key)
        # ASCII only: the text may hold bytes that are no UTF-8, as lone surrogates.
        line = json.dumps(fields, ensure_ascii=True).encode() + b"\n"
        with named(self._path):
            if self._file is None:
                self._file = self._open()
            while line:  # a write may take only a part
                line = line[self._file.write(line) :]
        self.count += 1

    def sync(self) -> None:
        """Returns when every letter is on the disk."""
        if self._file is not None and Path(self._path).is_file():
            with named(self._path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Lets go of the file, if there is one."""
        if self._file is not None:
            with named(self._path):
                self._file.close()
            self._file = None

    def _open(self) -> FileIO:
        path = Path(self._path)
        torn = path.is_file() and path.stat().st_size > 0 and not _ends_with_newline(path)
        file = FileIO(path, "ab")
        if torn:  # by a crash in the middle of a letter: the next one needs a line of its own
            file.write(b"\n")
        return file


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
