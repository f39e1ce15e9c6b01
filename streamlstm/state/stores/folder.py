"""Snapshots in a local folder: topic/number/blob, each blob a file that appears whole or not at all.

Life of a blob: it is written to a hidden file under a lock, brought to disk, renamed to its name; `flush` brings the
names to disk. A process that is killed leaves its hidden file behind without the lock, and the next `load` removes it.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from streamlstm.errors import OutputError, StateError, UsageError
from streamlstm.state.stores.protocol import HEAD_BYTES, Blob, fault, parts_of, seal

_MARKER = ".streamlstm-snapshots-1"
"""The empty file that says whose folder this is, and which version of its layout; no topic's folder starts with a dot."""
_FOREIGN = {"lost+found"}  # what a new volume already holds
_HIDDEN = ".writing-"
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "give this user the right to write there"),
}


class FolderStore:
    """Blobs as files under `root`, which is made where it is absent; a `SnapshotStore` for the processes of one host.

    UsageError where `root` holds anything else, OutputError where it cannot be written.
    """

    chunk_bytes = 4 << 20

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)
        self._unsynced: set[Path] = set()
        try:
            if not self._root.exists():
                self._root.mkdir(parents=True, exist_ok=True)
                self._unsynced.add(self._root.parent)
            others = {path.name for path in self._root.iterdir()} - _FOREIGN
            if not (self._root / _MARKER).exists():
                if others:
                    raise UsageError(
                        f"delivery.snapshots: {self._root} holds other things than snapshots of this version, such as "
                        f"{min(others)!r}; name an empty folder, or one that does not exist"
                    )
                (self._root / _MARKER).touch()
                self._unsynced.add(self._root)
            if not os.access(self._root, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise _unwritable(self._root, error) from error

    def partitions(self) -> list[str]:
        try:
            return sorted(
                f"{unquote(topic.name)}/{unquote(folder.name)}"
                for topic in self._root.iterdir()
                if topic.is_dir() and topic.name not in _FOREIGN
                for folder in topic.iterdir()
                if any(not path.name.startswith(_HIDDEN) for path in folder.iterdir())
            )
        except OSError as error:
            raise StateError(f"{self._root}: cannot be read: {error.strerror}; give this user the right to") from error

    def load(self, partition: str) -> dict[str, bytes]:
        folder = self._folder(partition)
        blobs = {}
        try:
            # The manifest before the chunks that it names: a chunk may be newer than its manifest, never older.
            for path in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ():
                # Another process may remove or replace the file at any time: what is gone was superseded.
                with suppress(FileNotFoundError):
                    if path.name.startswith(_HIDDEN):
                        _remove_abandoned(path)
                    else:
                        name = unquote(path.name)
                        blobs[name] = _read(path, partition, name)
        except OSError as error:
            raise StateError(
                f"{folder}: cannot read the snapshot: {error.strerror}; give this user the right to read it"
            ) from error
        return blobs

    def put(self, partition: str, name: str, blob: Blob) -> None:
        parts = parts_of(blob)
        folder = self._folder(partition)
        path = folder / _safe(name)
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                self._unsynced |= {self._root, folder.parent}
            _write(path, [memoryview(seal(partition, name, parts)), *parts])
        except OSError as error:
            raise _unwritable(path, error) from error
        self._unsynced.add(folder)

    def delete(self, partition: str, names: Iterable[str]) -> None:
        folder = self._folder(partition)
        for name in names:
            path = folder / _safe(name)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise _unwritable(path, error) from error
            self._unsynced.add(folder)

    def flush(self, timeout_s: float) -> None:
        for folder in sorted(self._unsynced, key=lambda path: len(path.parts), reverse=True):
            try:
                if folder.is_dir():
                    _sync(folder)
            except OSError as error:
                raise _unwritable(folder, error) from error
            self._unsynced.discard(folder)

    def close(self) -> None:
        pass

    def _folder(self, partition: str) -> Path:
        topic, _, number = partition.rpartition("/")
        return self._root / _safe(topic) / _safe(number)


def _safe(name: str) -> str:
    """A file name that no other name shares, never hidden, `.` or `..`."""
    quoted = quote(name, safe="")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def _write(path: Path, parts: Iterable[memoryview]) -> None:
    file, hidden = _hidden_file(path.parent)
    try:
        for part in parts:
            rest = part
            while rest:
                rest = rest[os.write(file, rest) :]
        os.fsync(file)
        hidden.rename(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def _hidden_file(folder: Path) -> tuple[int, Path]:
    while True:
        hidden = folder / f"{_HIDDEN}{secrets.token_hex(8)}"
        file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return file, hidden
        os.close(file)  # a load came before the lock and took the file for abandoned


def _remove_abandoned(hidden: Path) -> None:
    file = os.open(hidden, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.unlink()
    except (BlockingIOError, PermissionError):
        pass  # its writer lives; or only reading is allowed here, then `put` will say so
    finally:
        os.close(file)


def _read(path: Path, partition: str, name: str) -> bytes:
    with path.open("rb", buffering=0) as file:
        head, blob = file.read(HEAD_BYTES), file.read()
    wrong = fault(partition, name, head, blob)
    if wrong:
        raise StateError(
            f"{path}: {wrong}; restore {path.parent} from a backup, or remove it to start this partition without state"
        )
    return blob


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _unwritable(path: Path, error: OSError) -> OutputError:
    remedy = _REMEDIES.get(error.errno or 0, "check that it is a folder which can be written")
    return OutputError(f"{path}: cannot write the snapshot: {error.strerror}; {remedy}, or change delivery.snapshots")
