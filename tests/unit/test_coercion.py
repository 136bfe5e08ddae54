from __future__ import annotations

from calendar import isleap
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dataplane.coercion import _uncommon, canonical, coerce_column, escaped
from app.dataplane.grammar import Refused, coerce_value
from app.domain.tables import Column, ColumnType

KINDS = {kind: Column("c", kind) for kind in ColumnType}
EMAIL = Column("mail", ColumnType.TEXT, max_length=20, format="email")

LIKELY = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.from_regex(r"[+-]?[0-9]{1,20}(\.[0-9]{0,3})?(e[+-]?[0-9]{1,4})?", fullmatch=True),
    st.from_regex(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})?)?", fullmatch=True
    ),
    st.from_regex(r"\{?[0-9a-fA-F]{4}(-?[0-9a-fA-F]{4}){7}\}?", fullmatch=True),
    st.sampled_from(
        ["t", "TRUE", "no", "off", "o", "1", "0", "nan", "-inf", "{a,b}", "[1]", "a;b", '{"x":1}', "", "a@b", "@"]
    ),
)


def accepts(value: str, column: Column) -> bool:
    try:
        coerce_value(value, column)
    except Refused:
        return False
    return True


@given(st.sampled_from([*KINDS.values(), EMAIL]), st.lists(LIKELY, min_size=1, max_size=9))
def test_a_value_of_the_common_form_passes_the_grammar_unchanged(column: Column, values: list[str]) -> None:
    uncommon = set(_uncommon([value.encode() for value in values], column))

    for place in set(range(len(values))) - uncommon:
        assert coerce_value(values[place], column).lower() == values[place].lower()


def test_the_last_of_february_is_of_the_common_form_in_leap_years_alone() -> None:
    days = [f"{year:04}-02-29".encode() for year in range(10_000)]

    uncommon = set(_uncommon(days, KINDS[ColumnType.DATE]))

    assert set(range(10_000)) - uncommon == {year for year in range(1, 10_000) if isleap(year)}


@given(st.sampled_from(sorted(KINDS)), st.lists(LIKELY, max_size=300), st.booleans())
def test_a_column_gives_a_fault_for_each_refused_value_and_keeps_the_others(
    kind: ColumnType, values: list[str], required: bool
) -> None:
    column = KINDS[kind]

    coerced, faults = coerce_column([value.encode() for value in values], column, required=required)

    refused = {place for place, value in enumerate(values) if (required and not value) or not accepts(value, column)}
    assert set(faults) == refused
    for place, value in enumerate(values):
        if place not in refused:
            kept = coerced[place].decode()
            assert kept in (coerce_value(value, column), value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", "1_000"),
        ("integer", "１２"),
        ("integer", "0x1F"),
        ("integer", "2147483648"),
        ("integer", "1.0"),
        ("integer", "- 1"),
        ("integer", "9" * 5000),
        ("bigint", "9223372036854775808"),
        ("numeric", "1_0.5"),
        ("numeric", "."),
        ("numeric", "1e131073"),
        ("numeric", "1e999999999999"),
        ("double", "1e400"),
        ("double", "1e-400"),
        ("double", "0x1p3"),
        ("boolean", "o"),
        ("boolean", "ｔ"),
        ("boolean", "2"),
        ("date", "2023-02-29"),
        ("date", "0000-01-01"),
        ("date", "01/02/2023"),
        ("date", "now"),
        ("date", "20231"),
        ("timestamptz", "2024-01-01T00:00:00+25:00"),
        ("timestamptz", "2024-01-01T24:00:01Z"),
        ("timestamptz", "2024-01-01 12:60"),
        ("timestamptz", "2024-W01-1"),
        ("timestamptz", "2024-01-01X00:00"),
        ("uuid", "123e4567-e89b-12d3-a456-42661417400"),
        ("uuid", "{123e4567-e89b-12d3-a456-426614174000"),
        ("uuid", " 123e4567-e89b-12d3-a456-426614174000"),
        ("json", "NaN"),
        ("json", "{'a': 1}"),
        ("json", '"\\u0000"'),
        ("json", '"\\ud800"'),
        ("json", "[" * 100_000),
        ("text[]", "[1, [2]]"),
        ("text[]", "[a"),
        ("text[]", "{a,}"),
        ("text[]", "{a"),
    ],
)
def test_what_python_or_one_version_takes_and_postgres_may_not_is_refused(kind: str, value: str) -> None:
    assert not accepts(value, KINDS[ColumnType(kind)])


@pytest.mark.parametrize(
    ("kind", "value", "given"),
    [
        ("integer", " +7 ", "+7"),
        ("numeric", "NaN", "NaN"),
        ("numeric", ".5", ".5"),
        ("double", "-Infinity", "-Infinity"),
        ("boolean", " Yes ", "yes"),
        ("date", "2024-2-29", "2024-2-29"),
        ("date", "20240229", "20240229"),
        ("timestamptz", "2024-01-01 23:59:59.1234567+05:30", "2024-01-01 23:59:59.1234567+05:30"),
        ("timestamptz", "2024-01-01", "2024-01-01"),
        ("timestamptz", "infinity", "infinity"),
        ("uuid", "{123E4567E89B12D3A456426614174000}", "123e4567-e89b-12d3-a456-426614174000"),
        ("json", ' {"a": [1, null]} ', ' {"a": [1, null]} '),
        ("text[]", "a; b,c", '{"a","b,c"}'),
    ],
)
def test_forms_that_postgres_takes_are_taken(kind: str, value: str, given: str) -> None:
    assert coerce_value(value, KINDS[ColumnType(kind)]) == given


def test_a_fault_says_what_was_expected_and_what_came() -> None:
    _, faults = coerce_column([b"ok@x", b"nobody", "é".encode() * 21, b""], EMAIL, required=True)

    assert {place: (fault.code, fault.message) for place, fault in faults.items()} == {
        1: ("value.email", "mail: expected an e-mail address: one @ with something on both sides, got 'nobody'"),
        2: ("value.too_long", "mail: expected at most 20 characters, got 21 characters"),
        3: ("value.required", "mail is required, got an empty value"),
    }


def test_length_counts_characters_not_bytes() -> None:
    column = Column("c", ColumnType.TEXT, max_length=3)

    assert coerce_column(["é漢😀".encode()], column, required=False)[1] == {}


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10), min_size=1))
def test_escaping_leaves_no_character_that_copy_gives_a_meaning_and_loses_none(values: list[str]) -> None:
    written = [value.decode() for value in escaped([value.encode() for value in values])]

    assert not any(mark in value for value in written for mark in "\t\n\r")
    undone = [
        value.replace("\\\\", "\0").replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")
        for value in written
    ]
    assert undone == values


@pytest.mark.parametrize(
    ("kind", "same"),
    [
        (ColumnType.UUID, [b"ABCDEF00-0000-0000-0000-000000000000", b"abcdef00-0000-0000-0000-000000000000"]),
        (ColumnType.BIGINT, [b"7", b"+7", b"007"]),
        (ColumnType.BOOLEAN, [b"t", b"yes", b"1"]),
    ],
)
def test_forms_of_one_key_are_one_key(kind: ColumnType, same: list[bytes]) -> None:
    known = canonical(same, kind)

    assert known is not None
    assert len(set(known)) == 1


@given(st.dates())
def test_every_date_of_the_calendar_is_a_date(day: date) -> None:
    assert accepts(day.isoformat(), KINDS[ColumnType.DATE])
    assert coerce_column([day.isoformat().encode()], KINDS[ColumnType.DATE], required=True)[1] == {}
