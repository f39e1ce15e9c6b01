"""What the operating system says about an output, in words for people."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from streamlstm.errors import OutputError

_REMEDIES = {
    errno.ENOENT: "create the folder first, or choose another one",
    errno.ENOTDIR: "part of the path is a file; choose another folder",
    errno.EISDIR: "this is a folder; name a file in it",
    errno.EACCES: "choose a place where you may write, or change its permissions",
    errno.EPERM: "choose a place where you may write, or change its permissions",
    errno.EROFS: "choose a place that is not read-only",
    errno.ENOSPC: "free some space, or choose another place; rows written before may be incomplete",
    errno.EDQUOT: "free some space, or choose another place; rows written before may be incomplete",
    errno.EPIPE: "the reader went away; let it read to the end, or write to a file",
}
_OTHERWISE = "check the path and the device, or choose another place"


@contextmanager
def named(path: str) -> Iterator[None]:
    """Turns an `OSError` inside into an `OutputError` that names `path`, what happened and the remedy."""
    try:
        yield
    except OSError as error:
        what = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        remedy = _REMEDIES.get(error.errno or 0, _OTHERWISE)
        raise OutputError(f"{path}: cannot be written: {what}; {remedy}") from error
