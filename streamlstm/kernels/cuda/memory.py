"""Memory of the device, and what goes wrong with it in words for people."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np

from streamlstm.errors import DeviceError
from streamlstm.kernels.cuda.compiling import DRIVER_ERRORS, cuda
from streamlstm.kernels.cuda.desk import ADDRESS_BITS, ARRAYS, ints
from streamlstm.kernels.interpreting import INTERPRETED

_THREADS = 256
_numbers = count(1)
_WHOLE = np.int64(1 << 40)  # a length that no vector has


@contextmanager
def device_errors(what: str) -> Iterator[None]:
    """Errors of driver and compiler as a DeviceError that says what was tried."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise DeviceError(f"cuda: cannot {what}: {_line(error)}") from error


def new_stream() -> Any:
    """A stream of the device, in which work is done in order."""
    return cuda.stream()


def free_bytes() -> int:
    """Bytes of the device's memory that are free."""
    return int(min(cuda.current_context().get_memory_info()[0], 1 << 60))


class DeviceArray:
    """A flat array in the device's memory that grows: `array` for kernels, and the `address` where it lies now."""

    def __init__(self, dtype: Any, size: int = 0) -> None:
        self.dtype = np.dtype(dtype)
        self.size, self.address = 0, 0
        self.array: Any = None
        self.reserve(max(size, 1))

    def reserve(self, size: int, *, keep: int = 0, stream: Any = 0) -> None:
        """Room for so many values; of those before, the first `keep` stay. DeviceError where the memory is too small."""
        if size <= self.size:
            return
        needed = size * self.dtype.itemsize
        with device_errors(f"allocate {needed:,} bytes"):
            if needed > free_bytes():
                raise DeviceError(f"cuda: {needed:,} bytes are needed, {free_bytes():,} bytes of the device are free")
            if self.size:
                cuda.synchronize()  # no kernel uses the old one any more
            grown = cuda.device_array(size, self.dtype, stream=stream)
            if keep:
                cuda.cudadrv.driver.device_to_device(grown, self.array, keep * self.dtype.itemsize, stream)
        if INTERPRETED:
            number = next(_numbers)
            self.address, ARRAYS[number] = number << ADDRESS_BITS, grown._ary
        else:
            self.address = int(grown.__cuda_array_interface__["data"][0])
        self.array, self.size = grown, size

    def part(self, first: int) -> int:
        """The address of value `first`."""
        return self.address + first * int(self.dtype.itemsize)

    def put(self, values: Any, stream: Any = 0) -> None:
        """Copies flat `values` to its beginning; asynchronous where they are pinned."""
        if values.size:
            cuda.cudadrv.driver.host_to_device(self.array, values, values.nbytes, stream)

    def get(self, out: Any, stream: Any = 0) -> None:
        """Copies its beginning to the flat `out`; asynchronous where that is pinned."""
        if out.size:
            cuda.cudadrv.driver.device_to_host(out, self.array, out.nbytes, stream)


def pinned(dtype: Any, size: int) -> Any:
    """A flat array of the host that the device reads and writes itself, so that copies need not be waited for."""
    with device_errors(f"pin {size * np.dtype(dtype).itemsize:,} bytes of memory"):
        return cuda.pinned_array(max(size, 1), dtype)


@cuda.jit
def _move(source, target, index, rows, wide, scatter):
    e = cuda.grid(1)
    row = e // wide
    if row < rows:
        far, near = np.int64(ints(index, rows)[row]) * wide + e % wide, e
        if scatter:
            ints(target, _WHOLE)[far] = ints(source, _WHOLE)[near]
        else:
            ints(target, _WHOLE)[near] = ints(source, _WHOLE)[far]


def gather(source: DeviceArray, rows: Any, wide: int, stream: Any) -> Any:
    """Rows int32 (n) of a matrix `wide` values wide, as a new array (n, wide) of the host."""
    out = np.empty((len(rows), wide), source.dtype)
    if out.size:
        index, taken = DeviceArray(np.int32, len(rows)), DeviceArray(source.dtype, out.size)
        index.put(np.ascontiguousarray(rows, np.int32), stream)
        _launch(source.address, taken.address, index.address, out, scatter=0, stream=stream)
        taken.get(out.reshape(-1), stream)
        stream.synchronize()
    return out


def scatter(target: DeviceArray, rows: Any, values: Any, stream: Any) -> None:
    """Writes values (n, wide) to rows int32 (n), the reverse of `gather`."""
    if values.size:
        index, given = DeviceArray(np.int32, len(rows)), DeviceArray(target.dtype, values.size)
        index.put(np.ascontiguousarray(rows, np.int32), stream)
        given.put(np.ascontiguousarray(values).reshape(-1), stream)
        _launch(given.address, target.address, index.address, values, scatter=1, stream=stream)
        stream.synchronize()


def _launch(source: int, target: int, index: int, values: Any, *, scatter: int, stream: Any) -> None:
    words = values.itemsize // 4 * values.shape[1]
    blocks = -(-len(values) * words // _THREADS)
    _move[blocks, _THREADS, stream](source, target, index, len(values), words, scatter)


def why_unusable() -> str:
    """Why no device can be used, "" where one can."""
    try:
        if not cuda.is_available():
            error = cuda.cuda_error()
            return _line(error) if error else "the driver names no device"
        cuda.current_context()
    except DRIVER_ERRORS as error:
        return _line(error)
    return ""


def _line(error: object) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()).rstrip(".")
