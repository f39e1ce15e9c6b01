"""What single cells of a record mean: the careful reading that all decoders fall back on."""

import math
from collections.abc import Sequence

import pyarrow as pa

from streamlstm.config.schema import Input
from streamlstm.kernels.decode.numbers import LONGEST
from streamlstm.sources.numbers import floats
from streamlstm.sources.times import NAMES, TimeFormat, complaint, detect, nanoseconds
from streamlstm.types import NO_TIME, RawBlock

SHOWN = 100
"""Characters of a cell that the reason of a dead letter shows."""
NO_KEY = "has no key; the key says which stream a record belongs to"


class UnfitError(Exception):
    """A record that does not fit the schema; the text is the reason of its dead letter."""


def number_of_text(name: str, text: str) -> float:
    """The number that a cell of text means, NaN where it means a missing one."""
    if len(text) > LONGEST:
        raise UnfitError(f"column {name!r}: a number of {len(text)} characters; at most {LONGEST} are allowed")
    if not is_text(text):
        raise UnfitError(f"column {name!r}: {shown(repr(text))} is not a number")
    values, bad = floats(pa.array([text], pa.string()))
    if bad is not None and bad[0]:
        raise UnfitError(f"column {name!r}: {shown(repr(text))} is not a number")
    return math.nan if math.isnan(values[0]) else float(values[0])


def time_of_text(name: str, text: str, unit: str) -> int:
    """Nanoseconds of a cell of text under `input.time_unit`; with auto each cell decides by itself."""
    if not text.strip():
        raise UnfitError(f"column {name!r}: has no time")
    if len(text) > LONGEST:
        raise UnfitError(f"column {name!r}: a time of {len(text)} characters; at most {LONGEST} are allowed")
    found = detect([text], unit)  # type: ignore[arg-type]
    if found is None:
        wanted = "ISO 8601 or an epoch number" if unit == "auto" else "ISO 8601" if unit == "iso" else NAMES[unit]  # type: ignore[index]
        raise UnfitError(f"column {name!r}: {shown(repr(text))} is not a time; times are {wanted}")
    times, bad = nanoseconds(pa.array([text], pa.string()), found)
    if bad[0]:
        why = complaint(text, TimeFormat(found.kind, detected=False))
        raise UnfitError(f"column {name!r}: {why.replace(repr(text), shown(repr(text)))}")
    return int(times[0])


def time_of_record(block: RawBlock, at: int) -> int:
    """Nanoseconds of the record's own timestamp, NO_TIME where it has none."""
    stamp = int(block.timestamp[at])
    if stamp < 0:
        return int(NO_TIME)
    if stamp > (2**63 - 1) // 10**6:
        raise UnfitError(f"the record's timestamp {stamp} ms lies beyond the year 2261")
    return stamp * 10**6


def key_of_record(block: RawBlock, at: int) -> bytes:
    """The record's own key."""
    key = block.key(at)
    if not key:
        raise UnfitError(NO_KEY)
    try:
        key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnfitError(f"its key is not UTF-8 text ({error.reason} at byte {error.start})") from None
    return key


def joined_key(names: Sequence[str], parts: Sequence[str | None]) -> bytes:
    """The key of one field, or of several: joined by /, with % and / in them as %25 and %2F."""
    for name, part in zip(names, parts, strict=True):
        if not part:
            raise UnfitError(f"column {name!r}: {NO_KEY}")
        if not is_text(part):
            raise UnfitError(
                f"column {name!r}: {shown(repr(part))} holds half a surrogate pair, which is not a character"
            )
    if len(parts) == 1:
        return str(parts[0]).encode("utf-8")
    return "/".join(str(part).replace("%", "%25").replace("/", "%2F") for part in parts).encode("utf-8")


def key_names(settings: Input) -> tuple[str, ...]:
    """The fields that make the key, none where it is the record's own."""
    return (settings.key,) if isinstance(settings.key, str) else settings.key or ()


def shown(text: str) -> str:
    """A cell as a reason shows it: cut where it is long, for reasons travel in the headers of records."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def is_text(text: str) -> bool:
    """Whether a string holds characters alone, no half surrogate pairs."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
