"""Memory of the device, and what goes wrong with it in words for people."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np

from streamlstm.errors import DeviceError
from streamlstm.kernels.cuda.compiling import compiled, cuda, raised_by_driver
from streamlstm.kernels.cuda.desk import ADDRESS_BITS, ARRAYS, ints
from streamlstm.kernels.interpreting import INTERPRETED

_THREADS = 256
_numbers = count(1)
_WHOLE = np.int64(1 << 40)  # a length that no vector has


@contextmanager
def device_errors(what: str) -> Iterator[None]:
    """Errors of driver and compiler as a DeviceError that says what was tried. Inside, this thread may use the device."""
    try:
        cuda.current_context()  # each thread has to be told
        yield
    except Exception as error:
        if not raised_by_driver(error):
            raise
        raise DeviceError(f"cuda: cannot {what}: {_line(error)}") from error


def why_unusable() -> str:
    """Why no device can be used, "" where one can."""
    try:
        if not cuda.is_available():
            error = cuda.cuda_error()
            return _line(error) if error else "there is no device, no driver or no libNVVM"
        cuda.current_context()
    except Exception as error:
        if not raised_by_driver(error):
            raise
        return _line(error)
    return ""


def _line(error: object) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()).rstrip(".")


def new_stream() -> Any:
    """A stream of the device, in which work is done in order."""
    return cuda.stream()


def new_event() -> Any:
    """A mark in one stream that another one can wait for."""
    return cuda.event() if INTERPRETED else cuda.event(timing=False)


def pinned(dtype: Any, size: int) -> Any:
    """A flat array of the host that the device reads and writes itself, so that copies need not be waited for."""
    return cuda.pinned_array(max(size, 1), dtype)


def free_bytes() -> int:
    """Bytes of the device's memory that are free, also those that Numba was to give back later; slow."""
    context = cuda.current_context()
    if not INTERPRETED:
        context.memory_manager.deallocations.clear()
    return int(min(context.get_memory_info()[0], 1 << 60))


class DeviceArray:
    """A flat array in the device's memory that grows: where it lies is its `address` of now."""

    def __init__(self, dtype: Any, size: int = 0) -> None:
        self.dtype = np.dtype(dtype)
        self.size, self.address = 0, 0
        self._array: Any = None
        self.reserve(max(size, 1))

    def reserve(self, size: int, *, keep: int = 0) -> None:
        """Room for so many values; of those before, the first `keep` stay. DeviceError where the memory is too small."""
        if size <= self.size:
            return
        needed = size * self.dtype.itemsize
        if needed > free_bytes():
            raise DeviceError(f"cuda: {needed:,} bytes are needed, {free_bytes():,} bytes of the device are free")
        cuda.synchronize()  # no kernel uses the old one any more
        grown = cuda.device_array(size, self.dtype)
        if keep:
            cuda.cudadrv.driver.device_to_device(grown, self._array, keep * self.dtype.itemsize)
            cuda.synchronize()
        if INTERPRETED:
            number = next(_numbers)
            self.address, ARRAYS[number] = number << ADDRESS_BITS, grown._ary
        else:
            self.address = int(grown.__cuda_array_interface__["data"][0])
        self._array, self.size = grown, size

    def part(self, first: int) -> int:
        """The address of value `first`."""
        return self.address + first * int(self.dtype.itemsize)

    def put(self, values: Any, stream: Any, *, first: int = 0) -> None:
        """Copies flat `values` to places `first` on; not waited for, so they must stay as they are until then."""
        if values.size:
            cuda.cudadrv.driver.host_to_device(self._from(first), values, values.nbytes, stream)

    def get(self, out: Any, stream: Any, *, first: int = 0) -> None:
        """Copies the values from `first` on to the flat `out`; not waited for."""
        if out.size:
            cuda.cudadrv.driver.device_to_host(out, self._from(first), out.nbytes, stream)

    def _from(self, first: int) -> Any:
        return self._array[first:] if first else self._array


class Mover:
    """Copies rows of matrices between host and device, in a stream of the device; its memory only grows."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._index, self._rows = DeviceArray(np.int32), DeviceArray(np.int32)
        self._kernel = compiled(move, 6)

    def gather(self, source: DeviceArray, rows: Any, wide: int) -> Any:
        """Rows int32 (n) of a matrix `wide` values wide, as a new array (n, wide) of the host."""
        out = np.empty((len(rows), wide), source.dtype)
        if out.size:
            index = np.ascontiguousarray(rows, np.int32)
            self._send(index, out.nbytes)
            self._launch(source.address, self._rows.address, out, scatter=0)
            self._rows.get(out.reshape(-1).view(np.int32), self._stream)
            self._stream.synchronize()
        return out

    def scatter(self, target: DeviceArray, rows: Any, values: Any) -> None:
        """Writes values (n, wide) to rows int32 (n), the reverse of `gather`."""
        if values.size:
            index, given = np.ascontiguousarray(rows, np.int32), np.ascontiguousarray(values)
            self._send(index, given.nbytes)
            self._rows.put(given.reshape(-1).view(np.int32), self._stream)
            self._launch(self._rows.address, target.address, given, scatter=1)
            self._stream.synchronize()

    def _send(self, index: Any, size: int) -> None:
        """Copies the rows' numbers to the device, and makes room for so many bytes of values."""
        self._index.reserve(len(index))
        self._rows.reserve(size // 4)
        self._index.put(index, self._stream)

    def _launch(self, source: int, target: int, values: Any, *, scatter: int) -> None:
        words = values.itemsize // 4 * values.shape[1]
        blocks = -(-len(values) * words // _THREADS)
        self._kernel.launch(
            blocks, (_THREADS, 1), self._stream, 0, source, target, self._index.address, len(values), words, scatter
        )


def move(source, target, index, rows, wide, scatter):
    """Copies rows of int32 between a matrix and a smaller one of those that `index` names; one thread for each value."""
    e = cuda.grid(1)
    row = e // wide
    if row < rows:
        far, near = np.int64(ints(index, rows)[row]) * wide + e % wide, e
        if scatter:
            ints(target, _WHOLE)[far] = ints(source, _WHOLE)[near]
        else:
            ints(target, _WHOLE)[near] = ints(source, _WHOLE)[far]
