from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dataplane.chunks import Chunk
from app.dataplane.json_records import ArrayReader, LineReader
from app.dataplane.json_values import Quick, Shape
from app.domain.errors import JobError
from tests.unit.test_csv_records import outcome

NAMES = ("a", "b")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='aé😀\x1f\n\t\\",]}', max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2),
    max_leaves=4,
)
RECORDS = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2), max_size=12)


def shape(**changes: Any) -> Shape:
    return Shape(**{"names": NAMES, "ignore_unknown": False, "max_field_bytes": 512, **changes})


def lines_of(data: bytes, *, first_byte: int = 0, first_line: int = 1, **changes: Any) -> list[Chunk]:
    place = {"first_byte": first_byte, "first_line": first_line}
    return list(LineReader(io.BytesIO(data).read, shape(**changes), block_bytes=24, **place).chunks(2))


def array_of(data: bytes, *, ignore_unknown: bool = False, names: tuple[str, ...] = NAMES, **place: Any) -> list[Chunk]:
    said = shape(ignore_unknown=ignore_unknown, names=names)
    reader = ArrayReader(io.BytesIO(data).read, said, block_bytes=24, **place)
    if not place:
        reader.header()
    return list(reader.chunks(2))


def told(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def row(record: dict[str, Any]) -> tuple[bytes, ...]:
    return tuple(told(record.get(name)).encode() for name in NAMES)


@given(RECORDS, st.booleans())
def test_objects_a_line_give_their_values_and_tile_the_file(records: list[dict[str, Any]], ends: bool) -> None:
    data = "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode() + b"\n" * ends

    found = [what for what in outcome(lines_of(data)) if what[3] is not None]

    assert [what for *_, what in found] == [row(record) for record in records]
    assert [data[begin:end].strip() for _, begin, end, _ in found] == data.split(b"\n")[: len(records)]


@given(RECORDS, st.sampled_from([None, 1]))
def test_an_array_is_read_from_after_any_element(records: list[dict[str, Any]], indent: int | None) -> None:
    data = json.dumps(records, ensure_ascii=False, indent=indent).encode()

    whole = outcome(array_of(data))

    assert [what for *_, what in whole] == [row(record) for record in records]
    for line, _, end, _ in whole:
        rest = array_of(data[end:], first_byte=end, first_line=line + 1)
        assert outcome(rest) == whole[line:]


PIECES = (
    rb"""{ } [ ] , : "a" "b" "c" -0 - 1 1e5 0.10 NaN null true " \ \ud83d \u00e9 {"a":1} {"a":"x","b":-0.0}"""
    rb""" {"b":[1,{"x":2}]} },{"a": },{"a":2},{"b": """
).split()
NEAR_JSON = st.lists(
    st.sampled_from([*PIECES, b" ", b"\t", b"\r", b"\n", b"\xff", b"\xc3\xa9", b"\0", b"\x1f", b"9" * 5_000]),
    max_size=14,
).map(b"".join)


@given(NEAR_JSON, st.booleans(), st.sampled_from([lines_of, array_of]))
def test_the_quick_way_says_of_any_bytes_what_the_scanner_says(
    data: bytes, ignore_unknown: bool, read: Callable[..., list[Chunk]]
) -> None:
    if read is array_of:
        data = b'[{"a":0},{"a":0},{"a":0}' + data + b"]"

    def said() -> Any:
        try:
            return outcome(read(data, ignore_unknown=ignore_unknown))
        except JobError as error:
            return error.code, error.data

    quick = said()
    with patch.object(Quick, "_is_exact", lambda *_: False):
        slow = said()

    assert quick == slow


@pytest.mark.parametrize("read", [lines_of, array_of])
def test_names_that_need_escapes_are_read_too(read: Callable[..., list[Chunk]]) -> None:
    records = [{'a"\n': number, "b": None} for number in range(9)]
    data = json.dumps(records).encode()

    chunks = read(data if read is array_of else data[1:-1].replace(b"}, ", b"}\n"), names=('a"\n', "b"))

    assert [what for *_, what in outcome(chunks)] == [(b"%d" % number, b"") for number in range(9)]


def test_every_digit_of_a_number_is_kept() -> None:
    chunks = lines_of(b'{"a":0.10000000000000000000001,"b":[1e400,-0]}\n')

    assert outcome(chunks)[0][3] == (b"0.10000000000000000000001", b"[1e400, -0]")


def test_a_broken_line_is_a_fault_of_its_own() -> None:
    data = (
        b'{"a":1}\n{"a":\n\n[1]\n{"a":2},{"a":3}\n{"a":"\\ud800"}\n{"a":"\xff"}\n{"a":"\\u0000"}\n'
        b'{"c":1}\n{"a":NaN}\n{"a":4}'
    )

    assert [(line, what) for line, _, _, what in outcome(lines_of(data))] == [
        (1, (b"1", b"")),
        (2, "json.invalid"),
        (3, None),
        (4, "json.not_an_object"),
        (5, "json.invalid"),
        (6, "json.encoding"),
        (7, "json.encoding"),
        (8, "json.nul"),
        (9, "json.unknown_key"),
        (10, "json.invalid"),
        (11, (b"4", b"")),
    ]


def test_a_line_that_is_too_long_is_passed_over() -> None:
    data = b'{"a":"' + b"x" * 600 + b'"}\n' + b"y" * 5_000 + b'\n{"a":1}\n'

    assert [what for *_, what in outcome(lines_of(data))] == [
        "json.field_too_long",
        "json.record_too_long",
        (b"1", b""),
    ]
    assert outcome(lines_of(data))[-1][0] == 3


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[{}", b"[{},]", b"[{} {}]", b'[{"a":}]', b"[{}] 1", b"[,{}]", b'["\xff"]']
)
def test_a_broken_array_ends_the_job(data: bytes) -> None:
    with pytest.raises(JobError) as raised:
        array_of(data)

    assert raised.value.code == "json.invalid"


def test_the_raw_text_of_an_element_is_without_the_comma_before_it() -> None:
    (chunk,) = array_of(b'[{"a":1},\n {"c":2}]')

    assert chunk.raw(1) == b'{"c":2}'
    assert chunk.faults[1].code == "json.unknown_key"
