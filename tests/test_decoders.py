"""One contract for the decoders of every format, and each format's own rules against naive readers."""

import csv
import io
import json
import math
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest

from streamlstm.config import Config, load
from streamlstm.errors import ConfigError, UsageError
from streamlstm.sources.decoders.cells import UnfitError, time_of_text
from streamlstm.sources.decoders.opening import open_decoder
from streamlstm.sources.decoders.protocol import Decoder
from streamlstm.sources.numbers import MISSING, PATTERN
from streamlstm.types import NO_TIME, DeadLetter, EventBatch, RawBlock

ROOT = Path(__file__).parent.parent
NAN, INF = math.nan, math.inf
STAMP_MS = 1_700_000_000_000
SCHEMA = {
    "type": "record", "name": "Reading", "namespace": "plant", "fields": [
        {"name": "t", "type": [{"type": "long", "logicalType": "timestamp-millis"}, "null"]},
        {"name": "key", "type": ["null", "string"]},
        {"name": "site", "type": ["null", "string"]},
        {"name": "a", "type": ["null", "double"]},
        {"name": "unused", "type": {"type": "array", "items": "int"}},
        {"name": "b", "type": ["null", "double"]},
        {"name": "k", "type": ["null", "double"]},
    ],
}  # fmt: skip
NAMES = ("t", "key", "site", "a", "unused", "b", "k")


def block(
    values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None, stamps: Sequence[int] | None = None
) -> RawBlock:
    """Records at offsets 10, 13, 16 ... as they come from a topic; the last byte of the data is the last value's."""
    count = len(values)
    keys = [b"p"] * count if keys is None else keys
    data, spans = bytearray(), []
    for part in [part for pair in zip(keys, values, strict=True) for part in pair]:
        spans.append((-1, -1) if part is None else (len(data), len(data) + len(part)))
        data += part or b""
    both = np.array(spans, np.int64).reshape(count, 2, 2)
    return RawBlock(
        "t/0", np.frombuffer(bytes(data), np.uint8), both[:, 0].copy(), both[:, 1].copy(),
        10 + 3 * np.arange(count), np.array([STAMP_MS] * count if stamps is None else stamps, np.int64),
    )  # fmt: skip


def decoded(decoder: Decoder, raw: RawBlock) -> tuple[EventBatch, list[DeadLetter]]:
    letters: list[DeadLetter] = []
    return decoder.decode(raw, letters.append), letters


def part_of(raw: RawBlock, part: slice) -> RawBlock:
    return RawBlock(raw.source, raw.data, raw.keys[part], raw.values[part], raw.offset[part], raw.timestamp[part])


@dataclass(frozen=True)
class Reading:
    """What a record says."""

    a: float | None = 1.5
    b: float | None = -2.0
    k: float | None = 0.0
    t: int = STAMP_MS + 1
    key: str = "pump"
    site: str = "north"

    @property
    def items(self) -> list[Any]:
        return [self.t, self.key, self.site, self.a, [1], self.b, self.k]


@dataclass(frozen=True)
class Form:
    """How one format is configured and written, and values that are none of it with words of the reason."""

    name: str
    messages: dict[str, Any]
    write: Callable[[Reading], bytes]
    bad: list[tuple[bytes, str]]
    keyed: bool = True
    compiled: bool = True

    def open(self, **settings: Any) -> Decoder:
        config = Config.model_validate({"input": {"time_unit": "ms"} | settings, "messages": self.messages})
        return open_decoder(config, ("a", "b"), ("k",))


def json_text(value: Any) -> bytes:
    return json.dumps(value).encode()


def csv_line(reading: Reading) -> bytes:
    out = io.StringIO()
    cells = ["" if item is None else str(item) for item in reading.items]
    csv.writer(out).writerow(cells)
    return out.getvalue().encode()


def avro_record(reading: Reading) -> bytes:
    out = io.BytesIO(b"\0\0\0\0\7")
    out.seek(5)
    fastavro.schemaless_writer(out, fastavro.parse_schema(SCHEMA), dict(zip(NAMES, reading.items, strict=True)))
    return out.getvalue()


def packed(code: str) -> Callable[[Reading], bytes]:
    def write(reading: Reading) -> bytes:
        values = (NAN if value is None else value for value in (reading.a, reading.b, reading.k))
        return struct.pack(f"<3{code}", *values)

    return write


def plugin(key: bytes | None, value: bytes | None) -> dict[str, Any]:
    """The function that the format `python` calls here."""
    assert value is not None, "no value"
    if value == b"odd":
        raise ValueError("an odd record")
    if value == b"list":
        return []  # type: ignore[return-value]
    values = json.loads(value)
    return dict(zip(NAMES, values, strict=True))


@pytest.fixture(scope="session")
def schema_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("avro") / "reading.avsc"
    path.write_text(json.dumps(SCHEMA))
    return str(path)


FORMS = {
    "json": Form(
        "json",
        {"format": "json"},
        lambda reading: json_text(dict(zip(NAMES, reading.items, strict=True))),
        [(b"", "not JSON"), (b"[1]", "not an object"), (b'{"a": "x"}', "'a'.*not a number"), (b'{"a": 1', "not JSON"),
         (b'{"a": "\xff"}', "not UTF-8"), (b'{"b": [1]}', "'b'")],
    ),
    "array": Form(
        "array",
        {"format": "array", "columns": NAMES},
        lambda reading: json_text(reading.items),
        [(b"", "not JSON"), (b"{}", "not an array"), (b"[]", "0 items.* names 7"), (b'[1, "p", "n", 1, 2, 3]', "6 items"),
         (b'[1, "p", "n", 1, 2, 3, 4, 5]', "8 items"), (b'[1, "p", "n", "x", 2, 3, 4]', "'a'.*not a number"),
         (b'[1, "p", "n", 1, 2, [3], 4]', "'b'"), (b'[1, "p", "n", 1, 2, 3, 4', "not JSON"),
         (b'[1, "p", "n", 1, 2, 3, 4] 5', "not JSON"), (b'[1, "p", "\xff", 1, 2, 3, 4]', "not UTF-8"),
         (b'[1, "p", "n", 1, ' + b"[" * 64 + b"]" * 64 + b", 3, 4]", "deeper than 64")],
    ),
    "csv": Form(
        "csv",
        {"format": "csv", "columns": NAMES},
        csv_line,
        [(b"", "1 cells.* names 7"), (b"1,2,3", "3 cells"), (b"1,p,n,1,2,3,4,", "8 cells"),
         (b"1,p,n,x,2,3,4", "'a'.*not a number"),
         (b"1,p,n,1,2,3,\xff", "not UTF-8"), (b'1,p,n,1,"2,3,4', "no quote closes"), (b'1,p,n,1,"2"x,3,4', "closing quote"),
         (b"1,p,n,1,2,3,4\n1,p,n,1,2,3,4\n", "more than one line"), (b"1,p,n,1,2,3,4\r", "more than one line")],
    ),
    "float32": Form(
        "float32", {"format": "float32"}, packed("f"), [(b"", "0 bytes"), (b"\0" * 13, "13 bytes.*12")], keyed=False
    ),
    "float64": Form(
        "float64", {"format": "float64"}, packed("d"), [(b"", "0 bytes"), (b"\0" * 23, "23 bytes.*24")], keyed=False
    ),
    "avro": Form(
        "avro",
        {"format": "avro"},
        avro_record,
        [(b"", "Confluent"), (b"\1" + avro_record(Reading())[1:], "Confluent"), (b"\0\0\0\0\7", "not a record"),
         (avro_record(Reading())[:-1], "not a record"), (avro_record(Reading()) + b"\0", "1 bytes are left over")],
        compiled=False,
    ),
    "python": Form(
        "python",
        {"format": "python", "decoder": f"{__name__}:plugin"},
        lambda reading: json_text(reading.items),
        [(b"odd", "^an odd record$"), (b"list", "returned a list"),
         (b'[1, "p", "n", {}, 2, 3, 4]', "'a': a dict is not a number"), (b"{", "^JSONDecodeError: ")],
        compiled=False,
    ),
}  # fmt: skip


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, schema_file: str) -> Form:
    made = FORMS[request.param]
    if made.name == "avro":
        made.messages["schema_file"] = schema_file
    return made


READINGS = [
    Reading(), Reading(a=None), Reading(b=None, k=None), Reading(a=0.0, b=-0.0, k=1e30), Reading(a=-0.25, b=12345.0),
    Reading(a=2.0**-20, b=3.0, k=-1.0),
]  # fmt: skip


def expected_x(readings: list[Reading], form: Form) -> np.ndarray:
    x = np.array([[NAN if v is None else v for v in (r.a, r.b, r.k)] for r in readings])
    return x.astype(np.float32).astype(np.float64) if form.name == "float32" else x


def test_good_records_come_out_in_their_order_with_equal_columns(form: Form) -> None:
    keys = [b"p", "größe".encode(), b"q" * 50, b"p", b"0", b" "]
    raw = block([form.write(reading) for reading in READINGS], keys, [STAMP_MS + n for n in range(6)])
    batch, letters = decoded(form.open(), raw)
    assert letters == []
    assert batch.source == "t/0"
    np.testing.assert_array_equal(batch.x, expected_x(READINGS, form))
    assert np.signbit(batch.x[3]).tolist() == [False, True, False]  # -0.0
    assert batch.keys.to_pylist() == [key.decode() for key in keys]
    assert batch.time.tolist() == [(STAMP_MS + n) * 10**6 for n in range(6)]
    assert batch.row.tolist() == raw.offset.tolist()
    assert batch.x.dtype == np.float64
    assert batch.time.dtype == batch.row.dtype == np.int64


def test_bad_records_are_one_dead_letter_each_and_spare_the_others(form: Form) -> None:
    values: list[bytes | None] = [form.write(Reading(a=0.0))]
    for n, (bad, _) in enumerate(form.bad):
        values += [bad, form.write(Reading(a=n + 1.0))]
    values += [None]
    keys = [f"key-{n}".encode() for n in range(len(values))]
    raw = block(values, keys)
    batch, letters = decoded(form.open(), raw)
    assert batch.x[:, 0].tolist() == list(range(len(form.bad) + 1))
    assert batch.keys.to_pylist() == [key.decode() for key in keys[:-1:2]]
    assert batch.row.tolist() == raw.offset[:-1:2].tolist()
    assert [letter.line for letter in letters] == raw.offset[1::2].tolist()
    assert [(letter.key, letter.value) for letter in letters] == list(zip(keys[1::2], values[1::2], strict=True))
    for letter, (bad, reason) in zip(letters, form.bad, strict=False):
        assert letter.source == "t/0"
        assert re.search(reason, letter.reason), (bad, letter.reason)
        assert letter.text == bad.decode("utf-8", errors="replace")
    assert letters[-1].text == ""
    assert "no value" in letters[-1].reason


def test_no_records_and_only_bad_ones_make_an_empty_batch(form: Form) -> None:
    decoder = form.open()
    for raw in (block([]), block([form.bad[0][0]] * 3)):
        batch, letters = decoded(decoder, raw)
        assert len(batch) == len(batch.keys) == len(batch.time) == 0
        assert batch.x.shape == (0, 3)
        assert len(letters) == len(raw)


def test_a_record_without_a_key_or_with_one_that_is_no_text_is_a_dead_letter(form: Form) -> None:
    keys = [None, b"", b"\xff", b"\xed\xa0\x80", b"good"]
    batch, letters = decoded(form.open(), block([form.write(Reading())] * 5, keys))
    assert batch.keys.to_pylist() == ["good"]
    assert ["UTF-8" in letter.reason for letter in letters] == [False, False, True, True]
    assert all("key" in letter.reason for letter in letters)


def test_records_without_a_time_have_none(form: Form) -> None:
    batch, letters = decoded(form.open(), block([form.write(Reading())] * 3, stamps=[-1, 0, STAMP_MS]))
    assert letters == []
    assert batch.time.tolist() == [NO_TIME, 0, STAMP_MS * 10**6]


def test_the_split_into_blocks_changes_nothing(form: Form) -> None:
    values = [form.write(reading) for reading in READINGS]
    values[2:2] = [form.bad[0][0]]
    raw = block(values)
    decoder = form.open()
    whole, letters = decoded(decoder, raw)
    parts = [decoded(decoder, part_of(raw, slice(n, n + 1))) for n in range(len(raw))]
    np.testing.assert_array_equal(np.concatenate([batch.x for batch, _ in parts]), whole.x)
    assert [key for batch, _ in parts for key in batch.keys.to_pylist()] == whole.keys.to_pylist()
    assert [letter for _, some in parts for letter in some] == letters


def test_the_time_may_stand_in_a_column(form: Form) -> None:
    settings: dict[str, Any] = {"time": "t"}
    readings = [Reading(t=STAMP_MS + n) for n in (0, 1, 999)]
    values = [form.write(reading) for reading in readings]
    if not form.keyed:
        code = "f" if form.name == "float32" else "d"
        form = Form(form.name, form.messages | {"columns": ("a", "x", "b", "t", "k")}, form.write, [], keyed=False)
        settings["time_unit"] = "s"
        readings = [Reading(t=1000 * n) for n in (0, 2**24, 5)]
        values = [struct.pack(f"<5{code}", 1.5, 9.0, -2.0, reading.t / 1000, 0.0) for reading in readings]
    batch, letters = decoded(form.open(**settings), block(values))
    assert letters == []
    assert batch.time.tolist() == [reading.t * 10**6 for reading in readings]
    np.testing.assert_array_equal(batch.x, expected_x(readings, form))


@pytest.mark.parametrize("name", [name for name, each in FORMS.items() if each.keyed])
def test_the_key_may_be_made_of_columns(name: str, schema_file: str) -> None:
    form = FORMS[name]
    if name == "avro":
        form.messages["schema_file"] = schema_file
    names = [("p", "n"), ("größe/2", "100 %"), ('a"b', "c"), ("7", "a\nb"), ("", "n"), ("p", "")]
    raw = block([form.write(Reading(key=key, site=site)) for key, site in names], [None] * len(names))
    batch, letters = decoded(form.open(key="key"), raw)
    assert batch.keys.to_pylist() == ["p", "größe/2", 'a"b', "7", "p"]
    assert [letter.line for letter in letters] == [22]
    assert "'key'" in letters[0].reason
    batch, letters = decoded(form.open(key=("site", "key")), raw)
    assert batch.keys.to_pylist() == ["n/p", "100 %25/größe%2F2", 'c/a"b', "a\nb/7"]
    assert [letter.line for letter in letters] == [22, 25]


def test_infinities_are_missing_and_counted(form: Form) -> None:
    decoder = form.open()
    values = [form.write(Reading(a=INF)), form.write(Reading(b=-INF, k=INF)), form.write(Reading())]
    batch, letters = decoded(decoder, block(values))
    assert letters == []
    assert np.isnan(batch.x).tolist() == [[True, False, False], [False, True, True], [False, False, False]]
    assert decoder.infinities == 3
    decoded(decoder, block(values[:1]))
    assert decoder.infinities == 4


@pytest.mark.parametrize("name", [name for name, each in FORMS.items() if each.compiled])
def test_ordinary_records_never_need_the_careful_reading(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    form = FORMS[name]
    decoder = form.open(**({"time": "t", "key": "key"} if form.keyed else {}))
    monkeypatch.setattr(type(decoder), "_careful", lambda self, raw, at: pytest.fail(f"declined {raw.value(at)!r}"))
    rng = np.random.default_rng(1)
    numbers = [float(f"{v:.{d}f}") for v, d in zip(rng.normal(0, 1000, 300), rng.integers(0, 8, 300), strict=True)]
    readings = [Reading(a=v, b=w, k=None, key=f"größe {v}") for v, w in zip(numbers, rng.normal(size=300), strict=True)]
    batch, _ = decoded(decoder, block([form.write(reading) for reading in readings]))
    np.testing.assert_array_equal(batch.x, expected_x(readings, form))


# -- Against naive readers ------------------------------------------------------------------------------------------------


def naive_text(text: str) -> float:
    text = text.strip(" \t")
    if text in MISSING:
        return NAN
    if not re.match(PATTERN, text, re.ASCII):
        raise UnfitError(text)
    return NAN if "nan" in text.lower() else float(text)


def naive_item(item: Any) -> float:
    if item is None:
        return NAN
    if isinstance(item, str):
        return naive_text(item)
    if isinstance(item, list | dict):
        raise UnfitError("nested")
    try:
        return float(item)
    except OverflowError:
        return INF if item > 0 else -INF


def naive_array(value: bytes) -> tuple[int, list[float]]:
    items = json.loads(value.decode("utf-8"))
    if not isinstance(items, list) or len(items) != 4:
        raise UnfitError("shape")
    as_written = json.loads(value.decode("utf-8"), parse_float=str, parse_int=str, parse_constant=str)
    time = as_written[0]
    if not isinstance(time, str):
        raise UnfitError("time")
    return time_of_text("t", time, "ms"), [naive_item(item) for item in items[2:]]


def naive_line(value: bytes) -> tuple[int, list[float]]:
    text = value.decode("utf-8")
    text = re.sub(r"\r?\n\Z", "", text)
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if len(rows) != 1 or len(rows[0]) != 4:
        raise UnfitError("shape")
    if any(re.search("[\r\n]", cell) for cell in re.split(r'"(?:[^"]|"")*"', text)):
        raise UnfitError("lines")
    return time_of_text("t", rows[0][0], "ms"), [naive_text(cell) for cell in rows[0][2:]]


ORACLES = {"array": naive_array, "csv": naive_line}
SEEDS = {
    "array": [b'[1700000000000, "x", 1.25, null]', b' [ "1700000000123" ,{"a":[1,"\\u00e9"]},"3.5" , true ]\n',
              b"[1,2,-0,1e999]", b'[1.5,NaN,0.1e-3,"NA"]', b'["2024-01-02T03:04:05.678Z",[[]],-Infinity,12345678901234567890]'],
    "csv": [b"1700000000000,x,1.25,\r\n", b'1700000000123,"a,""b""", 3.5 ,"NA"\n', b"1,2,-0,1e999", b'1.5,"",.5,5.',
            b"2024-01-02T03:04:05.678Z,\xc3\xa9,-inf,12345678901234567890"],
}  # fmt: skip
SPICE = [b'"', b",", b"\n", b"\r", b"[", b"]", b"{", b"}", b":", b"\\", b"\\u0041", b"\\ud800", b"e", b"E+", b".", b"-",
         b"+", b"0", b"9" * 20, b"1_0",
         b" ", b"\t", b"\xff", b"\xc3", b"\xa9", b"null", b"true", b"nan", b"Infinity", b"\0"]  # fmt: skip


def mutated(seeds: list[bytes], count: int, rng: np.random.Generator) -> list[bytes]:
    """Seeds with up to four places removed, doubled, replaced or spiced."""
    out = []
    for _ in range(count):
        value = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(0, 5)):
            at = int(rng.integers(len(value) + 1))
            size = int(rng.integers(0, 4))
            match rng.integers(4):
                case 0:
                    del value[at : at + size]
                case 1:
                    value[at:at] = value[at : at + size]
                case 2:
                    value[at : at + 1] = bytes([rng.integers(256)])
                case _:
                    value[at:at] = SPICE[rng.integers(len(SPICE))]
        out.append(bytes(value))
    return out


def open_fuzzed(name: str) -> Decoder:
    settings = {"time": "t", "time_unit": "ms"}
    messages = {"format": name, "columns": ("t", "ignored", "a", "b")}
    return open_decoder(Config.model_validate({"input": settings, "messages": messages}), ("a", "b"), ())


def assert_agrees(name: str, values: list[bytes]) -> int:
    """Compares a decoder with its naive reader; returns how many values were good."""
    raw = block(values)
    batch, letters = decoded(open_fuzzed(name), raw)
    position = {int(offset): n for n, offset in enumerate(batch.row)}
    assert sorted([*batch.row.tolist(), *(letter.line for letter in letters)]) == raw.offset.tolist()
    for offset, value in zip(raw.offset.tolist(), values, strict=True):
        try:
            time, numbers = ORACLES[name](value)
        except (ValueError, csv.Error, UnfitError, RecursionError):
            assert offset not in position, value
            continue
        assert offset in position, (value, [letter.reason for letter in letters if letter.line == offset])
        at = position[offset]
        assert batch.time[at] == time, value
        expected = [NAN if math.isinf(number) else number for number in numbers]
        np.testing.assert_array_equal(batch.x[at], expected, err_msg=repr(value))
        assert np.array_equal(np.signbit(batch.x[at]), np.signbit(expected)) or np.isnan(expected).any(), value
    return len(batch)


@pytest.mark.parametrize("name", ORACLES)
def test_mutated_values_are_read_as_naive_readers_read_them(name: str) -> None:
    rng = np.random.default_rng(7)
    good = assert_agrees(name, SEEDS[name] + mutated(SEEDS[name], 4000, rng))
    assert good > 800


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ORACLES)
def test_a_million_mutated_values_are_read_as_naive_readers_read_them(name: str) -> None:
    rng = np.random.default_rng(8)
    for _ in range(100):
        assert_agrees(name, mutated(SEEDS[name], 10_000, rng))


GUARDED = """
import ctypes, mmap, sys
import numpy as np
sys.path.insert(0, "tests")
from test_decoders import FORMS, SEEDS, Reading, READINGS, block, decoded, mutated, open_fuzzed
from streamlstm.types import RawBlock

PAGE = mmap.PAGESIZE
pages = mmap.mmap(-1, 64 * PAGE)
memory = np.frombuffer(pages, np.uint8)
libc = ctypes.CDLL(None, use_errno=True)
for page in (0, 63):
    assert libc.mprotect(ctypes.c_void_p(memory.ctypes.data + page * PAGE), ctypes.c_size_t(PAGE), 0) == 0

def guarded(raw, at_end):
    size = len(raw.data)
    at = 63 * PAGE - size if at_end else PAGE
    memory[at : at + size] = raw.data
    data = memory[at : at + size]
    return RawBlock(raw.source, data, raw.keys, raw.values, raw.offset, raw.timestamp)

rng = np.random.default_rng(int(sys.argv[1]))
seen = 0
for name, form in FORMS.items():
    if form.compiled:
        seeds = [form.write(reading) for reading in READINGS] + [bad for bad, _ in form.bad]
        seeds += SEEDS.get(name, [])
        decoders = [form.open()]
        if name in SEEDS:
            decoders.append(open_fuzzed(name))
        if form.keyed:
            decoders.append(form.open(time="t", key=("site", "key")))
        for decoder in decoders:
            for value in mutated(seeds, int(sys.argv[2]), rng) + [value[:n] for value in seeds for n in range(len(value))]:
                for at_end in (False, True):
                    batch, letters = decoded(decoder, guarded(block([value], [b"p" if at_end else None]), at_end))
                    assert len(batch) + len(letters) == 1
                seen += 1
print(seen)
"""


@pytest.mark.timeout(290)
@pytest.mark.parametrize("boundscheck", ["0", "1"])
def test_no_kernel_reads_outside_its_block(boundscheck: str) -> None:
    if sys.platform != "linux":
        pytest.skip("protects a page with mprotect as Linux has it")
    environment = os.environ | {"NUMBA_BOUNDSCHECK": boundscheck}
    command = [sys.executable, "-c", GUARDED, "3", "100"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3000


# -- Configurations -------------------------------------------------------------------------------------------------------


def opening(messages: dict[str, Any], features: tuple[str, ...] = ("a",), **settings: Any) -> Decoder:
    return open_decoder(Config.model_validate({"input": settings, "messages": messages}), features, ())


@pytest.mark.parametrize(
    ("messages", "settings", "complaint"),
    [
        ({"format": "array"}, {}, r"messages\.columns: format array has no names"),
        ({"format": "csv", "columns": ("aa", "b")}, {}, r"messages\.columns:.*wants column 'a'.*nearest: 'aa'"),
        ({"format": "csv", "columns": ("a", "a")}, {}, r"messages\.columns: column 'a' stands at 2 places"),
        ({"format": "csv", "columns": ("a",), "separator": "é"}, {}, r"messages\.separator: must be an ASCII character"),
        ({"format": "csv", "columns": ("a",), "separator": '"'}, {}, r"messages\.separator: .*no quote"),
        ({"format": "float32", "columns": ("a", "key")}, {"key": "key"}, r"input\.key: packed numbers hold no key"),
        ({"format": "float64", "columns": ("a", "t")}, {"time": "t"}, r"input\.time_unit: .*one of: s, ms, us, ns; got 'auto'"),
        ({"format": "avro"}, {}, r"messages\.schema_file: format avro needs"),
        ({"format": "avro", "schema_file": "missing.avsc"}, {}, r"missing\.avsc: cannot be read: No such file"),
        ({"format": "python"}, {}, r"messages\.decoder: format python needs package\.module:function"),
        ({"format": "python", "decoder": "json.loads"}, {}, r"'json\.loads': must be package\.module:function"),
        ({"format": "python", "decoder": "no_such:f"}, {}, r"no_such cannot be imported \(ModuleNotFoundError"),
        ({"format": "python", "decoder": "json:no_such"}, {}, r"module json has no function no_such"),
    ],
)  # fmt: skip
def test_a_configuration_that_does_not_suffice_is_explained(
    messages: dict[str, Any], settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        opening(messages, **settings)


def test_the_features_of_messages_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"input\.features: name the columns"):
        opening({"format": "json"}, features=())


def avro_file(folder: Path, schema: object) -> dict[str, Any]:
    path = folder / "s.avsc"
    path.write_text(schema if isinstance(schema, str) else json.dumps(schema))
    return {"format": "avro", "schema_file": str(path)}


def record(*fields: tuple[str, object]) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields]}


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ("{", "is not JSON"),
        ({"type": "recrod"}, "is no Avro schema"),
        ("string", "is not JSON"),
        ('"string"', "must be the schema of a record"),
        (record(("aa", "int"), ("b", "int")), "has no field 'a'; the fields are aa, b; nearest: 'aa'"),
        (record(("a", {"type": "array", "items": "int"})), "field 'a' is of type array, which cannot hold a number"),
        (record(("a", ["null", "bytes"])), "field 'a' is of type bytes"),
    ],
)  # fmt: skip
def test_a_schema_that_does_not_fit_is_explained(schema: object, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"messages.schema_file: .*s.avsc: .*{complaint}"):
        opening(avro_file(tmp_path, schema))


def test_avro_without_its_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch, schema_file: str) -> None:
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(UsageError, match=r"pip install 'streamlstm\[avro\]'"):
        opening({"format": "avro", "schema_file": schema_file})


@pytest.mark.parametrize(
    ("logical", "factor"), [("timestamp-millis", 10**6), ("timestamp-micros", 1000), (None, 10**6)]
)
def test_avro_types_mean_what_they_are(logical: str | None, factor: int, tmp_path: Path) -> None:
    when: Any = "long" if logical is None else {"type": "long", "logicalType": logical}
    inner = {
        "type": "record",
        "name": "Inner",
        "fields": [{"name": "f", "type": "float"}, {"name": "i", "type": "int"}],
    }
    schema = record(
        ("t", ["null", when]), ("flag", "boolean"), ("in", ["null", inner]), ("text", "string"), ("no", "long")
    )
    messages = avro_file(tmp_path, schema)
    decoder = opening(messages, ("flag", "in.f", "in.i", "text"), time="t", key="no", time_unit="ms")

    def write(value: dict[str, Any]) -> bytes:
        raw = json.loads(json.dumps(schema).replace("logicalType", "plain"))
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(raw), value)
        return b"\0\0\0\0\1" + out.getvalue()

    time = STAMP_MS * 10**6 // factor
    good = {"t": time, "flag": True, "in": {"f": 0.5, "i": -3}, "text": " 7.5", "no": 12}
    values = [good, good | {"in": None, "text": "NA"}, good | {"t": None}, good | {"text": "x"}]
    batch, letters = decoded(decoder, block([write(value) for value in values]))
    np.testing.assert_array_equal(batch.x, [[1, 0.5, -3, 7.5], [1, NAN, NAN, NAN]])
    assert batch.time.tolist() == [STAMP_MS * 10**6] * 2
    assert batch.keys.to_pylist() == ["12", "12"]
    assert [letter.reason for letter in letters] == ["column 't': has no time", "column 'text': 'x' is not a number"]


def test_every_format_can_be_written_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "messages: {format: csv, columns: [time, a], separator: ';'}\ninput: {time: time, time_unit: iso}\n"
    )
    decoder = open_decoder(load(path), ("a",), ())
    batch, letters = decoded(decoder, block([b"2024-01-02T03:04:05Z;1.5", b"2024-01-02T03:04:05Z,1.5", b"5;1"]))
    assert batch.x.tolist() == [[1.5]]
    assert batch.time.tolist() == [1704164645 * 10**9]
    assert len(letters) == 2
