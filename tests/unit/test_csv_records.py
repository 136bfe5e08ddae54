from __future__ import annotations

import codecs
import csv
import io
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.dataplane.chunks import Chunk, Encoding, detect
from app.dataplane.records import RecordReader
from app.domain.errors import JobError

FIELD_BYTES = 64


def reader_of(data: bytes, *, block_bytes: int = 32, **settings: Any) -> RecordReader:
    settings.setdefault("max_field_bytes", FIELD_BYTES)
    return RecordReader(io.BytesIO(data).read, block_bytes=block_bytes, **settings)


def chunks_of(data: bytes, width: int, **settings: Any) -> list[Chunk]:
    return list(reader_of(data, **settings).chunks(width))


def outcome(chunks: list[Chunk]) -> list[tuple[Any, ...]]:
    """For each record: line, byte range, and its values, its fault's code or None for a blank line."""
    told = []
    for chunk in chunks:
        values = dict(zip(chunk.members, zip(*chunk.columns, strict=True), strict=True)) if chunk.members else {}
        for place in range(chunk.count):
            fault = chunk.faults.get(place)
            what = fault.code if fault else values.get(place)
            told.append((chunk.line_of(place), chunk.byte_of(place), chunk.byte_of(place + 1), what))
    return told


def values_of(chunks: list[Chunk]) -> list[Any]:
    return [what for *_, what in outcome(chunks)]


def only_careful(reader: RecordReader, width: int) -> list[Chunk]:
    reader._quick = lambda block, width: None  # type: ignore[method-assign] # the other way round the same block
    return list(reader.chunks(width))


CSV_BYTES = st.lists(
    st.sampled_from(
        [
            b"a",
            b"bc",
            b",",
            b",",
            b'"',
            b'"',
            b'""',
            b"\n",
            b"\n",
            b"\r\n",
            b"\r",
            b" ",
            b"\xc3\xa9",
            b"\x00",
            b"\xff",
            b"\\",
            b"\t",
            b"\x1f",
            b"\x1e",
            b"x,y\n",
            b'"p,q",r\n',
            b'"p""q",r\n',
        ]
    ),
    max_size=60,
).map(b"".join)


@given(CSV_BYTES, st.sampled_from([16, 32, 1 << 16]))
@example(b'"a""b",c\n', 1 << 16)
@example(b'"",c\n', 1 << 16)
@example(b'a,"b\nc,d\n', 1 << 16)
@example(b'"a"b,c\n', 1 << 16)
@example(b'a"b,c\n', 1 << 16)
@example(b"a,b\n\nc,d", 1 << 16)
def test_the_quick_way_and_the_careful_way_give_the_same_records(data: bytes, block_bytes: int) -> None:
    quick = chunks_of(data, 2, block_bytes=block_bytes)
    careful = only_careful(reader_of(data, block_bytes=block_bytes), 2)

    assert outcome(quick) == outcome(careful)


@given(CSV_BYTES, st.integers(1, 3), st.sampled_from([8, 32, 1 << 16]))
def test_records_tile_any_file_without_hole_or_overlap(data: bytes, width: int, block_bytes: int) -> None:
    reader = reader_of(data, block_bytes=block_bytes)

    told = outcome(list(reader.chunks(width)))

    at = 0
    for _, begin, end, _ in told:
        assert begin == at
        assert end > begin
        at = end
    assert at == len(data) == reader.next_byte
    lines = [line for line, *_ in told]
    assert lines == sorted(set(lines))
    assert lines == [1 + len(data[:begin].splitlines()) for _, begin, *_ in told]


@pytest.mark.feature("S4-114")
@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12), min_size=3, max_size=3),
        max_size=20,
    ),
    st.sampled_from([8, 1 << 16]),
)
def test_what_the_csv_module_writes_comes_back(rows: list[list[str]], block_bytes: int) -> None:
    written = io.StringIO()
    csv.writer(written).writerows(rows)

    chunks = chunks_of(written.getvalue().encode(), 3, block_bytes=block_bytes, max_field_bytes=10_000)

    assert values_of(chunks) == [tuple(value.encode() for value in row) for row in rows]


@pytest.mark.feature("S4-114")
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_ends_a_record(end: str) -> None:
    data = end.join(["a,b", "c,d", "e,f", ""]).encode()

    told = outcome(chunks_of(data, 2, block_bytes=8))

    assert [(line, what) for line, _, _, what in told] == [(1, (b"a", b"b")), (2, (b"c", b"d")), (3, (b"e", b"f"))]


@pytest.mark.feature("S4-114")
def test_a_quoted_line_end_belongs_to_its_field_and_counts_as_a_line() -> None:
    told = outcome(chunks_of(b'a,"b\r\nc"\nd,e\n', 2))

    assert told == [(1, 0, 9, (b"a", b"b\r\nc")), (3, 9, 13, (b"d", b"e"))]


def test_an_unclosed_quote_costs_its_own_line_and_no_other() -> None:
    told = outcome(chunks_of(b'a,"b\n' + b"c,d\n" * 200, 2, block_bytes=64))

    assert told[0] == (1, 0, 5, "csv.unclosed_quote")
    assert [what for *_, what in told[1:]] == [(b"c", b"d")] * 200


def test_a_record_with_another_number_of_fields_says_both_numbers() -> None:
    chunk = chunks_of(b"a,b\nc\nd,e,f\n", 2)[0]

    assert {place: fault.message for place, fault in chunk.faults.items()} == {
        1: "expected 2 fields as in the header, got 1",
        2: "expected 2 fields as in the header, got 3",
    }


@pytest.mark.feature("S4-114")
def test_bytes_that_are_no_text_and_nul_are_refused_alone() -> None:
    values = values_of(chunks_of(b"a,b\nc,\xff\nd,\x00\n\xc3\xa9,f\n", 2, block_bytes=1 << 16))

    assert values == [(b"a", b"b"), "csv.encoding", "csv.nul", ("é".encode(), b"f")]


def test_a_field_over_the_limit_is_refused_and_one_at_the_limit_is_not() -> None:
    data = b"a," + b"x" * FIELD_BYTES + b"\nb," + b"x" * (FIELD_BYTES + 1) + b"\nc,d\n"

    values = values_of(chunks_of(data, 2))

    assert values == [(b"a", b"x" * FIELD_BYTES), "csv.field_too_long", (b"c", b"d")]


def test_a_line_that_never_ends_is_one_refused_record_and_is_not_kept() -> None:
    chunks = chunks_of(b"x" * 1_000_000 + b"\na,b\n", 2)

    assert values_of(chunks) == ["csv.record_too_long", (b"a", b"b")]
    assert max(len(chunk.data) for chunk in chunks) < 1_000


def test_blank_lines_are_told_apart_from_records() -> None:
    chunk = chunks_of(b'a\n\n""\n', 1, block_bytes=1 << 16)[0]

    assert chunk.blanks == [1]
    assert chunk.columns == [[b"a", b""]]


@pytest.mark.parametrize("encoding", [Encoding.UTF_16_LE, Encoding.UTF_16_BE, Encoding.LATIN_1])
def test_byte_ranges_are_those_of_the_file_in_any_encoding(encoding: Encoding) -> None:
    lines = ["é,b\n", '"c\nö",d\n', "Ċ,x\n" if encoding.is_wide else "ÿ,x\n", "😀,y\n" if encoding.is_wide else "z,y\n"]
    data = "".join(lines).encode(encoding)

    told = outcome(chunks_of(data, 2, encoding=encoding, block_bytes=8))

    ends = [len("".join(lines[: count + 1]).encode(encoding)) for count in range(len(lines))]
    assert [end for _, _, end, _ in told] == ends
    assert [what[1] for *_, what in told] == [b"b", b"d", b"x", b"y"]
    assert told[1][3][0] == "c\nö".encode()


def test_utf_16_that_ends_in_half_a_character_refuses_the_last_record() -> None:
    data = "a,b\nc,d".encode("utf-16-le")[:-1]

    values = values_of(chunks_of(data, 2, encoding=Encoding.UTF_16_LE))

    assert values == [(b"a", b"b"), "csv.encoding"]


@pytest.mark.parametrize(
    ("head", "asked", "found"),
    [
        (b"id,n", "utf-8", (Encoding.UTF_8, 0)),
        (codecs.BOM_UTF8 + b"i", "utf-8", (Encoding.UTF_8, 3)),
        (codecs.BOM_UTF16_LE + b"i\0", "utf-8", (Encoding.UTF_16_LE, 2)),
        (codecs.BOM_UTF16_BE + b"\0i", "utf-16", (Encoding.UTF_16_BE, 2)),
        (b"i\0d\0", "utf-16", (Encoding.UTF_16_LE, 0)),
        (b"\xff\xfei\0", "latin-1", (Encoding.LATIN_1, 0)),
    ],
)
def test_a_byte_order_mark_decides_unless_latin_1_is_asked(
    head: bytes, asked: str, found: tuple[Encoding, int]
) -> None:
    assert detect(head, asked) == found


def test_the_header_may_span_lines_and_blocks_and_follows_blank_lines() -> None:
    reader = reader_of(b'\n\n"first\nname",' + b"x" * 40 + b"\n1,2\n", block_bytes=8)

    header = reader.header()

    assert header == ["first\nname", "x" * 40]
    assert (reader.next_line, reader.next_byte) == (5, 56)
    assert values_of(list(reader.chunks(2))) == [(b"1", b"2")]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\r\n"])
def test_a_file_without_a_header_says_so(data: bytes) -> None:
    assert reader_of(data).header() is None


@pytest.mark.parametrize("data", [b'"a,b\nc', b"\xff\xfe\xff,b\n", b"x" * 10_000])
def test_a_header_that_cannot_be_read_is_an_error(data: bytes) -> None:
    with pytest.raises(JobError) as raised:
        reader_of(data).header()

    assert raised.value.code == "csv.header_invalid"


@given(data=CSV_BYTES, piece_bytes=st.integers(1, 64), block_bytes=st.integers(4, 40))
@example(data=b"a,b\n1,2\n3,4\n", piece_bytes=6, block_bytes=6)
def test_records_are_the_same_however_many_bytes_come_at_once(data: bytes, piece_bytes: int, block_bytes: int) -> None:
    source = io.BytesIO(data)
    in_pieces = RecordReader(
        lambda most: source.read(min(most, piece_bytes)), block_bytes=block_bytes, max_field_bytes=FIELD_BYTES
    )

    found = outcome(list(in_pieces.chunks(2)))

    assert found == outcome(chunks_of(data, 2, block_bytes=10_000))
