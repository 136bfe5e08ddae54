from __future__ import annotations

from typing import Any

import pytest
import re2
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from app.dataplane.comparing import readings
from app.dataplane.patterns import Pattern, PatternError
from app.dataplane.rules import Rule
from app.dataplane.uniqueness import Seen
from app.domain.tables import Column, ColumnType

RULE: TypeAdapter[Any] = TypeAdapter(Rule)
T = ColumnType


def broken(rule: dict[str, Any], *columns: list[str], kinds: tuple[ColumnType, ...] = (T.TEXT, T.TEXT)) -> list[int]:
    one = RULE.validate_python({"column": "a", **rule})
    values = [[value.encode() for value in column] for column in columns]
    named = [Column(name, kind) for name, kind in zip("ab", kinds, strict=False)]
    return [place for place, said in one.broken(values, named[: len(columns)]) if said]


@pytest.mark.feature("S2-24")
@pytest.mark.parametrize(
    ("rule", "values", "kind", "places"),
    [
        ({"rule": "required"}, ["a", "", "b"], T.TEXT, [1]),
        ({"rule": "length", "min": 2, "max": 3}, ["ab", "a", "", "éééé", "ééé"], T.TEXT, [1, 3]),
        ({"rule": "length", "max": 3}, ["abc", "abcd"], T.TEXT, [1]),
        ({"rule": "pattern", "pattern": "[A-Z]{2}-\\d+"}, ["AB-1", "AB-", "xAB-1", "", "AB-1\n"], T.TEXT, [1, 2, 4]),
        ({"rule": "enum", "values": ["DE", "FR"]}, ["DE", "de", "", "US"], T.TEXT, [1, 3]),
        ({"rule": "enum", "values": ["DE", "FR"], "ignore_case": True}, ["DE", "de", "", "US"], T.TEXT, [3]),
        ({"rule": "range", "min": 1, "max": 10}, ["1", "10", "0", "11", "", "x"], T.INTEGER, [2, 3]),
        ({"rule": "range", "min": 0.5}, ["0.50", "0.4999999999999999999", "NaN", "-inf"], T.NUMERIC, [1, 3]),
        ({"rule": "range", "max": 5}, ["5", "5.0000000000000000001", "NaN"], T.NUMERIC, [1, 2]),
        ({"rule": "range", "min": "2024-01-01"}, ["2024-01-01", "20231231", "2024/1/2", "soon"], T.DATE, [1]),
        (
            {"rule": "range", "max": "2024-01-01T00:00Z"},
            ["2024-01-01T01:00+01:00", "2024-01-01 00:00:00.000001", "infinity"],
            T.TIMESTAMPTZ,
            [1, 2],
        ),
    ],
)
def test_a_rule_names_the_rows_that_break_it(
    rule: dict[str, Any], values: list[str], kind: ColumnType, places: list[int]
) -> None:
    assert broken(rule, values, kinds=(kind,)) == places


@pytest.mark.feature("S2-24")
@pytest.mark.parametrize(
    ("operator", "kinds", "rows", "places"),
    [
        (">=", (T.DATE, T.TIMESTAMPTZ), [("2024-01-02", "2024-01-01T12:00Z"), ("2024-01-01", "20240101 00:01")], [1]),
        ("<", (T.INTEGER, T.NUMERIC), [("9", "10"), ("10", "9.5"), ("", "1"), ("x", "1")], [1]),
        ("!=", (T.TEXT, T.TEXT), [("a", "b"), ("a", "a")], [1]),
        ("=", (T.UUID, T.UUID), [("0" * 32, "{" + "0" * 32 + "}"), ("0" * 32, "1" * 32)], [1]),
    ],
)
def test_two_columns_are_compared_as_their_types_have_it(
    operator: str, kinds: tuple[ColumnType, ColumnType], rows: list[tuple[str, str]], places: list[int]
) -> None:
    one, other = map(list, zip(*rows, strict=True))

    assert broken({"rule": "cross_field", "operator": operator, "other": "b"}, one, other, kinds=kinds) == places


@pytest.mark.parametrize(
    ("rule", "kinds"),
    [
        ({"rule": "range", "min": 1}, [T.TEXT]),
        ({"rule": "range", "min": "2024-01-01"}, [T.INTEGER]),
        ({"rule": "range", "min": "soon"}, [T.DATE]),
        ({"rule": "cross_field", "operator": "<", "other": "b"}, [T.DATE, T.INTEGER]),
        ({"rule": "cross_field", "operator": "<", "other": "b"}, [T.UUID, T.UUID]),
        ({"rule": "cross_field", "operator": "=", "other": "b"}, [T.BOOLEAN, T.BOOLEAN]),
    ],
)
def test_a_rule_says_when_it_does_not_fit_the_types(rule: dict[str, Any], kinds: list[ColumnType]) -> None:
    one = RULE.validate_python({"column": "a", **rule})

    assert one.misfit([Column("c", kind) for kind in kinds])


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "length"},
        {"rule": "range"},
        {"rule": "pattern", "pattern": "(?=a)b"},
        {"rule": "pattern", "pattern": "(a)\\1"},
        {"rule": "pattern", "pattern": "\\C"},
        {"rule": "pattern", "pattern": "([^a]{500}){2}"},
        {"rule": "enum", "values": []},
        {"rule": "always"},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RULE.validate_python({"column": "a", **rule})


PATTERNS = [
    "a|ab",
    "^a|b$",
    "[^a]*",
    "a*",
    "(?m)^a$",
    r"\ba\b",
    "(?s).*",
    ".{2}",
    r"\n?a",
    r"a\$",
    "(?i)É+",
    "$",
    r"\Aab\z",
]


@budget(max_examples=60)
@given(
    st.sampled_from(PATTERNS),
    st.lists(st.text(st.sampled_from(["a", "b", "\n", "é", "ÿ", "$", " "]), max_size=3), max_size=6),
)
def test_a_column_at_once_gives_what_each_value_gives(pattern: str, values: list[str]) -> None:
    alone = [place for place, value in enumerate(values) if value and not re2.fullmatch(pattern, value)]

    assert list(Pattern(pattern).misfits([value.encode() for value in values])) == alone


def test_no_pattern_is_slow() -> None:
    values = [b"a" * 20_000 + b"!"] * 3

    assert list(Pattern("(a|a|aa)*(a*)*b?").misfits(values)) == [0, 1, 2]


def test_a_pattern_that_is_too_large_says_so() -> None:
    with pytest.raises(PatternError, match="too large"):
        Pattern("[^a]{999}")


@pytest.mark.parametrize("held", [2, 1_000])
def test_what_was_seen_is_known_again_wherever_it_lies(held: int) -> None:
    seen = Seen(held)
    long = b"x" * 40

    found = [seen.repeated(values) for values in ([b"a", None, b"a"], [long, b"b"], [b"c", long, None, b"a"], [b"d"])]

    assert found == [[2], [], [1, 3], []]


@pytest.mark.parametrize("held", [0, 1_000])
def test_what_comes_once_more_is_not_known_by_itself(held: int) -> None:
    seen = Seen(held)
    seen.repeated([b"a"])

    seen.repeated([b"a", b"b"])
    seen.forget()
    again = seen.repeated([b"a", b"b"])
    seen.keep()
    seen.forget()

    assert (again, seen.repeated([b"b", b"c"])) == ([0], [0])


def test_readings_order_what_the_types_take() -> None:
    instants = readings([b"2024-02-29", b"2024-03-01", b"0001-01-01", b"-infinity"], T.DATE)

    assert sorted(instants) == [instants[3], instants[2], instants[0], instants[1]]
    assert instants[1] - instants[0] == 86_400 * 1_000_000
