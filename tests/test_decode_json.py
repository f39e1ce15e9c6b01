"""The compiled JSON decoder against `json.loads`: every bit of its columns, and exactly the same dead letters."""

import ctypes
import json
import math
import mmap
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_decode import Expected, expected

from streamlstm.config.schema import Input
from streamlstm.kernels.decode.numbers import NOT_A_NUMBER, OK, parse_number, parse_text_number
from streamlstm.kernels.decode.text import is_utf8
from streamlstm.kernels.decode.times import UNITS, parse_time
from streamlstm.sources.decoders.json import JsonDecoder
from streamlstm.sources.numbers import floats
from streamlstm.sources.times import detect, nanoseconds
from streamlstm.types import NO_TIME, DeadLetter, EventBatch, RawBlock, UInt8

STAMP = 1_700_000_000_123
PLAIN = Input(features=("value", "b"), exogenous=("c",), time="ts")
RECORD_TIME = Input(features=("value",))
NESTED = Input(features=("m.x", "m.y"), exogenous=("value", "c"), key="k", time="m.ts", time_unit="s")
PARTS = Input(features=("value", "a rather long name of a field"), key=("k", "m.site"), time="ts", time_unit="auto")
UNICODE = Input(features=("température", "b", "m"), exogenous=("m.x",), key="clé")
SCHEMAS = (PLAIN, RECORD_TIME, NESTED, PARTS, UNICODE)
NO_ACCESS = 0  # PROT_NONE
JUNK = b'7"}\\9e'  # between records: a kernel that reads on finds something that looks like more of the value


def block_of(values: Sequence[bytes | None], keys: Sequence[bytes | None], stamps: Sequence[int]) -> RawBlock:
    """A block with junk around each key and value."""
    data = bytearray(JUNK)

    def place(content: bytes | None) -> tuple[int, int]:
        if content is None:
            return -1, -1
        start = len(data)
        data.extend(content + JUNK)
        return start, start + len(content)

    key_spans = [place(key) for key in keys]
    value_spans = [place(value) for value in values]
    count = len(values)
    return RawBlock(
        "topic/0",
        np.frombuffer(bytes(data), np.uint8),
        np.array(key_spans, np.int64).reshape(count, 2),
        np.array(value_spans, np.int64).reshape(count, 2),
        np.arange(100, 100 + 2 * count, 2, np.int64),
        np.array(stamps, np.int64),
    )


def decoded(values: Sequence[bytes | None], schema: Input, key: bytes | None = b"k") -> list[Expected | None]:
    """What the decoder makes of values that all have one key; the infinities of a whole block are on its last record."""
    decoder = JsonDecoder(schema)
    dead: list[DeadLetter] = []
    batch = decoder.decode(block_of(values, [key] * len(values), [STAMP] * len(values)), dead.append)
    return spread(batch, dead, len(values))


def spread(batch: EventBatch, dead: Sequence[DeadLetter], count: int) -> list[Expected | None]:
    """One entry per record of a block, None for a dead letter; the infinities are not known by record."""
    batch.keys.validate(full=True)
    assert sorted([*batch.row.tolist(), *(letter.line for letter in dead)]) == list(range(100, 100 + 2 * count, 2))
    found: list[Expected | None] = [None] * count
    for row, time, x, key in zip(batch.row, batch.time, batch.x, batch.keys.to_pylist(), strict=True):
        bits = tuple(struct.pack("<d", math.nan if math.isnan(v) else v) for v in x)
        found[(int(row) - 100) // 2] = Expected(int(time), bits, key, 0)
    return found


def compare(values: Sequence[bytes | None], schema: Input, key: bytes | None = b"k") -> int:
    """Asserts that decoder and oracle agree on each value; returns how many are no dead letters."""
    wanted = [expected(value, key, STAMP, schema) for value in values]
    decoder = JsonDecoder(schema)
    dead: list[DeadLetter] = []
    batch = decoder.decode(block_of(values, [key] * len(values), [STAMP] * len(values)), dead.append)
    actual = spread(batch, dead, len(values))
    for value, want, have in zip(values, wanted, actual, strict=True):
        assert have == (None if want is None else want._replace(infinities=0)), (value, schema)
    assert decoder.infinities == sum(want.infinities for want in wanted if want is not None)
    return len(batch)


def reason(value: bytes | None, schema: Input = PLAIN, key: bytes | None = b"k", stamp: int = STAMP) -> str:
    """Why a single record is a dead letter."""
    dead: list[DeadLetter] = []
    assert len(JsonDecoder(schema).decode(block_of([value], [key], [stamp]), dead.append)) == 0
    return dead[0].reason


def declined(values: Sequence[bytes], schema: Input, key: bytes = b"k") -> list[bytes]:
    """The values that the kernel leaves to the careful reading."""
    decoder = JsonDecoder(schema)
    asked: list[int] = []
    decoder._careful = lambda block, at: asked.append(at) or "declined"  # type: ignore[method-assign,func-returns-value]
    decoder.decode(block_of(values, [key] * len(values), [STAMP] * len(values)), lambda letter: None)
    return [values[at] for at in asked]


# Examples.

GOOD = {
    "numbers": (PLAIN, rb'{"ts":1700000000000,"value":20.1234,"b":-0,"c":-0.0}'),
    "seventeen digits": (PLAIN, rb'{"ts":17,"value":0.30000000000000004,"b":9007199254740993,"c":1.7976931348623157e308}'),
    "white space": (PLAIN, b' \t\r\n{ "ts" :\t1 ,\n"value" : 2 ,"b":\r3 } \n'),
    "nothing wanted but the time": (PLAIN, rb'{"other":{},"ts":0}'),
    "null, true, false": (PLAIN, rb'{"ts":5,"value":null,"b":true,"c":false}'),
    "NaN": (PLAIN, rb'{"ts":5,"value":NaN}'),
    "number in a string": (PLAIN, rb'{"ts":"1700000000.5","value":" +1.50 ","b":"","c":"NA"}'),
    "ISO time": (PLAIN, rb'{"ts":"2024-01-02T03:04:05.678Z","value":1}'),
    "duplicates": (PLAIN, rb'{"value":1,"ts":1,"value":2,"ts":2,"b":3,"b":null}'),
    "escapes in what is skipped": (PLAIN, rb'{"s":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud83d","ts":1,"value":1}'),
    "unicode": (PLAIN, '{"s":"žluťoučký 🐎","ts":1,"value":1}'.encode()),
    "skipped nesting": (PLAIN, b'{"s":' + b"[" * 63 + b"]" * 63 + rb',"ts":1,"o":{"a":[{},[],{"value":[1,"]}"]}]},"value":1}'),
    "escaped name": (PLAIN, rb'{"\u0074s":1,"val\u0075e":2.5,"\ud83d":1}'),
    "dotted": (NESTED, rb'{"m":{"x":1,"y":"2","ts":1700000000.123456789,"z":[]},"k":"p/1%","c":3}'),
    "flat field with the dot": (NESTED, rb'{"m.x":7,"m.ts":"5","k":"p"}'),
    "null object": (UNICODE, '{"m":null,"température":2,"clé":"k\\u00e9\\ud83d\\ude00"}'.encode()),
    "joined key": (PARTS, rb'{"k":"a/b%\u002f","m":{"site":-1.50e3},"ts":1,"value":1}'),
    "true in a key": (PARTS, rb'{"k":true,"m":{"site":false},"ts":1,"value":1,"a rather long name of a field":4}'),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_plain_records_are_decoded_by_the_kernel(name: str) -> None:
    schema, value = GOOD[name]
    assert compare([value], schema) == 1
    assert declined([value], schema) == []


def test_the_columns_of_a_record() -> None:
    decoder = JsonDecoder(NESTED)
    value = rb'{"k":"p","m":{"x":1,"y":1e400,"ts":1700000000.123456789},"c":"3"}'
    batch = decoder.decode(block_of([b"", value], [None] * 2, [-1] * 2), lambda letter: None)
    assert batch.time.tolist() == [1_700_000_000_123_456_789]
    assert batch.x.flags.c_contiguous
    np.testing.assert_array_equal(batch.x, [[1, np.nan, np.nan, 3]])
    assert batch.keys == pa.array(["p"])
    assert (batch.row.tolist(), batch.source, decoder.infinities) == ([102], "topic/0", 1)


def test_the_time_of_a_record_without_one() -> None:
    batch = JsonDecoder(RECORD_TIME).decode(block_of([b"{}"] * 2, [b"k"] * 2, [-1, 5]), lambda letter: None)
    assert batch.time.tolist() == [NO_TIME, 5_000_000]


BAD = {
    b"": "is not JSON: Expecting value at character 1",
    b'{"ts":1 "value":2}': "is not JSON: Expecting ',' delimiter at character 9",
    b'{"ts":1}x': "is not JSON: Extra data at character 9",
    b'\xef\xbb\xbf{"ts":1}': "is not JSON: Unexpected UTF-8 BOM (decode using utf-8-sig) at character 1",
    b'{"ts":1,"s":"\xff"}': "is not UTF-8 text (invalid start byte at byte 13)",
    b"[1]": "is JSON, but not an object with a field per column",
    b'{"ts":1,"s":' + b"[" * 64 + b"]" * 64 + b"}": "nests deeper than 64 levels",
    b"[" * 100_000: "nests deeper than 64 levels",
    b'{"ts":1,"s":' + b"1" * 4301 + b"}": "holds a number of 4301 characters; at most 4300 are allowed",
    b'{"ts":1,"s":0.' + b"1" * 4300 + b',"s":0}': "holds a number of 4302 characters; at most 4300 are allowed",
    b'{"ts":1,"value":"x"}': "column 'value': 'x' is not a number",
    b'{"ts":1,"value":"\\ud800"}': "column 'value': '\\ud800' is not a number",
    b'{"ts":1,"value":[1]}': """column 'value': ["1"] is not a number""",
    b'{"ts":1,"value":"' + b"x" * 4000 + b'"}': "column 'value': '" + "x" * 99 + "... is not a number",
    b'{"value":1}': "column 'ts': has no time",
    b'{"ts":true}': "column 'ts': true is not a time",
    b'{"ts":"soon"}': "column 'ts': 'soon' is not a time; times are ISO 8601 or an epoch number",
    b'{"ts":"2024-02-30T00:00:00Z"}': "column 'ts': '2024-02-30T00:00:00Z' cannot be read as ISO 8601 with a zone; "
    "days must exist, years be 1678 to 2261, digits end at 1 ns",
}


@pytest.mark.parametrize("value", BAD, ids=range(len(BAD)))
def test_the_reason_of_a_dead_letter(value: bytes) -> None:
    assert reason(value) == BAD[value]
    assert compare([value], PLAIN) == 0


def test_the_reasons_that_lie_outside_the_value() -> None:
    assert reason(None) == "has no value"
    assert reason(b'{"ts":1}', key=None) == "has no key; the key says which stream a record belongs to"
    assert reason(b'{"ts":1}', key=b"\xff") == "its key is not UTF-8 text (invalid start byte at byte 0)"
    assert reason(b"{}", NESTED) == "column 'm.ts': has no time"
    assert reason(b'{"m":5}', NESTED) == "column 'm.ts': the field 'm' is not an object"
    assert reason(b'{"m":{"ts":1},"k":""}', NESTED).startswith("column 'k': has no key")
    assert reason(b'{"m":{"ts":1},"k":"\\udc00"}', NESTED).startswith("column 'k': '\\udc00' holds half a surrogate")
    assert reason(b"{}", RECORD_TIME, stamp=2**60).startswith(
        "the record's timestamp 1152921504606846976 ms lies beyond"
    )


def test_a_dead_letter_holds_the_record() -> None:
    dead: list[DeadLetter] = []
    JsonDecoder(PLAIN).decode(block_of([b"{}", b"\xff"], [b"a", None], [0, 0]), dead.append)
    assert [(d.source, d.line, d.key, d.value, d.text) for d in dead] == [
        ("topic/0", 100, b"a", b"{}", "{}"),
        ("topic/0", 102, None, b"\xff", "\ufffd"),
    ]


def test_careful_and_dead_records_stand_among_plain_ones_in_order() -> None:
    odd = rb'{"ts":1,"value":Infinity,"k":"\u00e9"}'  # the kernel declines it
    values = [b"{}", odd, rb'{"ts":2,"value":2,"k":"plain"}', odd, b"[", rb'{"ts":3,"value":3,"k":"last"}', odd]
    schema = Input(features=("value",), key="k", time="ts")
    decoder = JsonDecoder(schema)
    dead: list[DeadLetter] = []
    batch = decoder.decode(block_of(values, [None] * 7, [0] * 7), dead.append)
    assert batch.keys.to_pylist() == ["é", "plain", "é", "last", "é"]
    assert batch.row.tolist() == [102, 104, 106, 110, 112]
    np.testing.assert_array_equal(batch.x[:, 0], [np.nan, 2, np.nan, 3, np.nan])
    assert ([letter.line for letter in dead], decoder.infinities) == ([100, 108], 3)


@pytest.mark.parametrize("features", [("",), (".b",), ("a.",), ("a", "a.b", "a.b.c"), ("x" * 300,)])
def test_odd_names_of_fields(features: tuple[str, ...]) -> None:
    schema = Input(features=features)
    values = [
        b'{"":1}',
        b'{"":{"b":2}}',
        b'{"a":{"":3,"b":4,"b.c":5}}',
        b'{"a":null,"a.b":6}',
        b'{"a":7}',
        b'{"a":null,"a":{}}',
    ]
    compare([*values, b'{"' + b"x" * 300 + b'":8}', b'{"' + b"\\u0078" * 300 + b'":9}'], schema)


def test_an_empty_block() -> None:
    assert len(JsonDecoder(PLAIN).decode(block_of([], [], []), lambda letter: None)) == 0


def test_a_batch_shares_no_memory_with_the_next_one() -> None:
    decoder = JsonDecoder(NESTED)
    blocks = [block_of([b'{"k":"%d","m":{"ts":%d,"x":%d}}' % (n, n, n)] * 50, [None] * 50, [0] * 50) for n in range(3)]
    batches = [decoder.decode(block, lambda letter: None) for block in blocks]
    for n, batch in enumerate(batches):
        assert set(batch.keys.to_pylist()) == {str(n)}
        assert set(batch.time.tolist()) == {n * 10**9}
        assert set(batch.x[:, 0].tolist()) == {n}


# Properties.

digit = st.text("0123456789", min_size=1, max_size=25)
number_text = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers().map(str),
    st.tuples(st.floats(min_value=-1e6, max_value=1e6), st.integers(0, 17)).map(lambda pair: f"{pair[0]:.{pair[1]}f}"),
    st.tuples(digit, digit, st.integers(-400, 400)).map(lambda parts: "{}.{}e{}".format(*parts)),
    st.tuples(digit, st.sampled_from(["", "e5", "E-3", ".", "e", ".e1", "e+", "-", "E+07"])).map("".join),
    st.integers(0, 2**53).map(lambda n: str(2 * n + 1) + "5" * (n % 3)),
    st.text("0123456789+-.eE", max_size=30),
)
bits_float = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])


def buffer(text: str) -> UInt8:
    return np.frombuffer(JUNK + text.encode() + JUNK, np.uint8)


def bits_of(value: float) -> bytes:
    return struct.pack("<d", value)


@settings(max_examples=1500, deadline=None)
@given(st.one_of(number_text, bits_float.map(repr)))
def test_numbers_are_those_of_python(text: str) -> None:
    data = buffer(text)
    value, status = parse_number(data, len(JUNK), len(data) - len(JUNK))
    try:
        good = isinstance(plain := json.loads(text), int | float) and text.strip() == text
    except ValueError:
        good = False
    if good and not text.lstrip("-")[:1].isalpha():
        assert status != NOT_A_NUMBER
        if status == OK:
            wanted = float(text) if isinstance(plain, float) else float(text) + 0.0
            assert bits_of(value) == bits_of(wanted)
    else:
        assert status == NOT_A_NUMBER


def halfway(value: float) -> str:
    """The decimal expansion of the number in the middle between a float64 and the next one."""
    middle = (Fraction(value) + Fraction(math.nextafter(value, math.inf))) / 2
    shift = max(0, middle.denominator.bit_length() - 1)
    return f"{middle.numerator * 5**shift}e-{shift}"


def test_numbers_between_two_neighbours_are_rounded_right_or_declined() -> None:
    rng = random.Random(5)
    certain = 0
    for _ in range(20_000):
        bits = rng.getrandbits(63) % (0x7FE << 52)
        value = struct.unpack("<d", struct.pack("<Q", bits))[0]
        for text in (
            repr(value),
            f"{value:.17e}",
            f"{value:.20e}",
            *([halfway(value)] if 1e-30 < value < 1e40 else []),
        ):
            data = buffer(text)
            actual, status = parse_number(data, len(JUNK), len(data) - len(JUNK))
            assert status != NOT_A_NUMBER
            if status == OK:
                certain += 1
                assert bits_of(actual) == bits_of(float(text)), text
    assert certain > 55_000
    for n in range(-330, 320):  # exact ties among numbers of few digits, and the ends of the range
        for m in (1, 3, 9007199254740993, 9007199254740995, 18014398509481985, 9999999999999999999, 17976931348623158):
            data = buffer(f"{m}e{n}")
            actual, status = parse_number(data, len(JUNK), len(data) - len(JUNK))
            assert status != OK or bits_of(actual) == bits_of(float(f"{m}e{n}")), (m, n)


text_number = st.one_of(
    number_text,
    st.sampled_from(["", "NaN", "nan", "null", "NA", "Nan", "na", "inf",
                     "-Infinity", "+INF", "nan(a)", "NULL", ".", "+", "0x1", "1_0"]),
    st.tuples(st.text(" \t\n", max_size=2), number_text, st.text(" \t\u00a0", max_size=2)).map("".join),
    number_text.map(lambda text: "+" + text),
)  # fmt: skip


@settings(max_examples=1000, deadline=None)
@given(text_number)
def test_a_number_in_a_string_means_what_it_means_in_a_file(text: str) -> None:
    data = buffer(text)
    _, status = parse_text_number(data, len(JUNK), len(data) - len(JUNK))
    value = json.dumps({"value": text}).encode()
    assert (compare([value], RECORD_TIME) == 0) == (reason_of(text) is not None)
    assert status != OK or reason_of(text) is None


def reason_of(text: str) -> str | None:
    """Whether the reader of files finds a number in a cell of text."""
    _, bad = floats(pa.array([text], pa.string()))
    return "bad" if bad is not None and bad[0] else None


days = st.sampled_from(
    ["2024-02-29", "2023-02-29", "1900-02-29", "2000-02-29", "1677-12-31", "2262-01-01", "2024-13-01", "2024-04-31"]
)
clocks = st.sampled_from(
    ["", "T00:00:00", "T23:59:59.999999999", "T24:00:00", "T23:59:60", "T12", "T12:30Z", " 01:02:03.5Z", "T01:02:03.Z"]
)
time_text = st.one_of(
    st.datetimes().map(lambda t: t.isoformat()),
    st.tuples(st.datetimes(), st.sampled_from(["", "Z", "+05:30", "-00:01", "+24:00", "+0530", "z", " "])).map(
        lambda pair: pair[0].isoformat(" ") + pair[1]
    ),
    st.tuples(days, clocks).map("".join),
    st.integers(-(10**20), 10**20).map(str),
    st.integers(0, 20).flatmap(lambda n: st.integers(-(10**n), 10**n)).map(str),
    st.tuples(st.integers(-(10**12), 10**12), digit).map(lambda pair: f"{pair[0]}.{pair[1]}"),
    st.sampled_from([10**11, 10**14, 10**17]).flatmap(lambda b: st.integers(b - 20, b + 20)).map(str),
    st.sampled_from(["99999999999.9999999999", "99999999999.999999", "-99999999999.5", "1e11", "-0", "0.0", "5.", ".5"]),
    st.sampled_from(["9223372036854775807", "9223372036.854775807", "-9223372036.854775808", "9223372036854.775808"]),
    number_text,
)  # fmt: skip


@settings(max_examples=2000, deadline=None)
@given(time_text, st.sampled_from(UNITS))
def test_times_are_those_of_files(text: str, unit: str) -> None:
    data = buffer(text)
    actual, status = parse_time(data, len(JUNK), len(data) - len(JUNK), UNITS.index(unit))
    found = detect([text], unit)  # type: ignore[arg-type]
    if status == 0:
        assert found is not None
        times, bad = nanoseconds(pa.array([text], pa.string()), found)
        assert (actual, bool(bad[0])) == (int(times[0]), False)
    schema = Input(features=("value",), time="ts", time_unit=unit)
    compare([json.dumps({"ts": text}).encode(), b'{"ts":' + text.encode() + b"}"], schema)


def test_utf8_is_that_of_python() -> None:
    for first in range(256):
        texts = [
            bytes([first, second]) + tail for second in range(256) for tail in (b"", b"\x80", b"\xbf\xbf", b"\x80A")
        ]
        data = np.frombuffer(b"".join(text + b"\x80" for text in texts), np.uint8)
        at = 0
        for text in texts:
            try:
                text.decode("utf-8")
                good = True
            except UnicodeDecodeError:
                good = False
            assert is_utf8(data, at, at + len(text)) == good, text
            at += len(text) + 1


names = st.sampled_from(["value", "b", "c", "ts", "m", "k", "m.x", "m.ts", "x", "y", "site", "température", "clé", "", "other",
                         "a rather long name of a field", "a rather long name of a fiend"])  # fmt: skip
space = st.sampled_from(["", "", "", " ", "\t\n", "\r "])
scalars = st.one_of(
    number_text,
    time_text.map(json.dumps),
    text_number.map(json.dumps),
    st.sampled_from(["null", "true", "false", "NaN", "Infinity", "-Infinity", "1e400", '"\\ud800"', '"\\u00e9"', '"/%"', '""']),
    st.text(max_size=12).map(json.dumps),
    st.text(st.characters(exclude_characters='"\\', exclude_categories=["Cs", "Cc"]), max_size=12).map(lambda t: f'"{t}"'),
)  # fmt: skip


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    quoted = names.map(lambda n: json.dumps(n, ensure_ascii=len(n) % 2 == 0))
    member = st.tuples(space, quoted, space, st.just(":"), space, values, space).map("".join)
    return st.lists(member, max_size=6).map(lambda members: "{" + ",".join(members) + "}")


values_text = st.recursive(
    scalars,
    lambda inner: st.one_of(objects(inner), st.lists(inner, max_size=3).map(lambda v: "[" + ",".join(v) + "]")),
    max_leaves=12,
)
documents = st.one_of(objects(values_text), st.tuples(space, objects(values_text), space).map("".join), values_text)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(documents.map(lambda text: text.encode("utf-8", "replace")), min_size=1, max_size=4),
    st.sampled_from(SCHEMAS),
)
def test_any_document_is_decoded_as_python_does(values: list[bytes], schema: Input) -> None:
    compare(values, schema)


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode)), st.one_of(st.none(), st.binary(max_size=9))
)
def test_any_bytes_are_taken_as_python_does(value: bytes, key: bytes | None) -> None:
    compare([value, b'{"ts":1,"value":' + value + b"}", b'{"ts":1,"' + value + b'":1}', b"{}"], PLAIN, key)


# Fuzzing by mutations of valid values.

FRAGMENTS = [
    *(bytes([byte]) for byte in b'"\\{}[],:-.0 \t\n\x00\x1f\x7f\x80'), b"\\u00e9", b"\\ud83d\\ude00", b"\\ud800",
    b"null", b"true", b"NaN", b"e5", b"1e400", b"12345678901234567890", "é😀".encode(), b"\xed\xa0\x80", b'"value":1',
    b'"m":{"x":2,"ts":5}', b'"k":"a/b"', b'"ts":"2024-01-02T03:04:05Z"', b'"c":', b"[" * 63, b"9" * 400,
]  # fmt: skip


def valid(rng: random.Random) -> bytes:
    """A value that fits most schemas."""
    milliseconds = 1_700_000_000_000 + rng.randrange(10**9)
    number = rng.choice([rng.uniform(-1e3, 1e3), rng.randrange(-100, 100), round(rng.random(), 4)])
    record: dict[str, Any] = {
        "ts": rng.choice([milliseconds, 1_700_000_000.25, "2024-01-02T03:04:05.678Z", "2024-01-02 03:04:05"]),
        "value": rng.choice([number, str(number), True, None]),
        "b": rng.choice([rng.random() * 10.0 ** rng.randrange(-300, 300), "NA", "  7 "]),
        "k": rng.choice(["p-1", "pumpe/ü%", 17, 1.50, "😀"]),
        "clé": rng.choice(["p-1", "é\n", 3]),
        "température": rng.random(),
        "m": {"x": rng.random(), "y": str(number), "ts": milliseconds / 1000, "site": "s", "z": [{}, [1, {"a": "b"}]]},
        "s": rng.choice(["text", 'quo"te\\', "é" * 9, ["\ud83d"], {"value": {"ts": 1}}]),
        "a rather long name of a field": rng.random(),
        "m.x": rng.random(),
    }
    chosen = [name for name in record if rng.random() < 0.9]
    rng.shuffle(chosen)
    separators = rng.choice([(",", ":"), (", ", ": "), (" ,\n", " :\t")])
    text = json.dumps({name: record[name] for name in chosen}, ensure_ascii=rng.random() < 0.5, separators=separators)
    return text.encode("utf-8", "surrogatepass")


def mutated(rng: random.Random, value: bytes, other: bytes) -> bytes:
    """The value after a byte flip, a cut, a splice with another one, an insertion or a repetition."""
    data = bytearray(value)
    at = rng.randrange(len(data)) if data else 0
    kind = rng.randrange(8)
    if kind == 0 and data:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and data:
        data[at] = rng.randrange(256)
    elif kind == 2:
        del data[at:]
    elif kind == 3:
        data[at:] = other[rng.randrange(len(other) + 1) :]
    elif kind == 4:
        del data[at : at + rng.randrange(1, 6)]
    elif kind == 5:
        stop = at + rng.randrange(1, 30)
        data[at:at] = data[at:stop]
    else:
        data[at:at] = rng.choice(FRAGMENTS)
    return bytes(data)


def fuzzed(count: int, seed: int) -> Iterator[bytes]:
    """`count` values: a third valid, the others mutated up to three times."""
    rng = random.Random(seed)
    other = valid(rng)
    for n in range(count):
        value = valid(rng)
        for _ in range(0 if n % 3 == 0 else rng.randrange(1, 4)):
            value = mutated(rng, value, other)
        other = value or other
        yield value


PART = 10_000


def in_parts(run: Callable[[int, int], int], count: int, seed: int) -> int:
    """The sum of what `run(values, seed)` returns over parts of at most 10 000 values, told as it grows."""
    total = 0
    for n, begin in enumerate(range(0, count, PART)):
        size = min(PART, count - begin)
        total += run(size, seed + n)
        print(f"{begin + size} values, {total} decoded", file=sys.stderr, flush=True)
    return total


def campaign(count: int, seed: int) -> int:
    """Compares `count` fuzzed values in blocks of 500 under all schemas by turns; returns how many are no dead letters."""
    values = list(fuzzed(count, seed))
    return sum(
        compare(values[begin : begin + 500], SCHEMAS[begin // 500 % len(SCHEMAS)]) for begin in range(0, count, 500)
    )


def test_fuzzed_values() -> None:
    good = campaign(10_000, seed=1)
    assert 2_000 < good < 9_000


# Memory: the same under bounds checks, and beside a page that no one may touch.


class Guarded:
    """Memory between two pages that cannot be read."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        pages = -(-size // page)
        self._memory = mmap.mmap(-1, (pages + 2) * page)
        whole = np.frombuffer(self._memory, np.uint8)
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for at in (0, (pages + 1) * page):
            assert protect(whole.ctypes.data + at, page, NO_ACCESS) == 0
        self.inside = whole[page : (pages + 1) * page]

    def at_end(self, content: bytes) -> UInt8:
        """The content, right before the closed page."""
        part = self.inside[len(self.inside) - len(content) :]
        part[:] = np.frombuffer(content, np.uint8)
        return part

    def at_start(self, content: bytes) -> UInt8:
        """The content, right behind the closed page."""
        part = self.inside[: len(content)]
        part[:] = np.frombuffer(content, np.uint8)
        return part


def guarded_campaign(count: int, seed: int) -> int:
    """Decodes fuzzed values where they touch a closed page, behind and before; returns how many are no dead letters."""
    memory = Guarded(1 << 16)
    decoders = [JsonDecoder(schema) for schema in SCHEMAS]
    good = 0
    for n, value in enumerate(fuzzed(count, seed)):
        content = value or b"?"
        span = np.array([[0, len(content)]], np.int64)
        for data in (memory.at_end(content), memory.at_start(content)):
            block = RawBlock("t/0", data, span, span, np.zeros(1, np.int64), np.zeros(1, np.int64))
            good += len(decoders[n % len(decoders)].decode(block, lambda letter: None))
    return good


CAMPAIGNS: dict[str, Callable[[int, int], int]] = {"plain": campaign, "guard": guarded_campaign, "bounds": campaign}


def run_apart(name: str, count: int, timeout_s: float) -> int:
    """What a campaign of this file returns in a process of its own, which a fault in memory may kill."""
    environment = os.environ | ({"NUMBA_BOUNDSCHECK": "1"} if name == "bounds" else {})
    command = [sys.executable, __file__, name, str(count)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=timeout_s)
    assert done.returncode == 0
    return int(done.stdout)


@pytest.mark.timeout(280)
def test_nothing_is_read_outside_a_value() -> None:
    assert run_apart("guard", 5_000, 270) > 2_000


@pytest.mark.timeout(280)
def test_fuzzed_values_under_bounds_checks() -> None:
    assert run_apart("bounds", 2_000, 270) > 400


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_a_million_fuzzed_values(name: str) -> None:
    assert run_apart(name, 1_000_000, 3600) > 200_000


if __name__ == "__main__":
    print(in_parts(CAMPAIGNS[sys.argv[1]], int(sys.argv[2]), seed=1000))
