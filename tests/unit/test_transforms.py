from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from app.dataplane.transforms import Transform
from app.domain.tables import ColumnType

TRANSFORM: TypeAdapter[Any] = TypeAdapter(Transform)


def changed(operation: str, *values: str, kind: ColumnType | None = None, **options: Any) -> Any:
    """The columns that come of it, as text, and the codes of the faults by place."""
    one = TRANSFORM.validate_python({"field": "f", "operation": operation, **options})
    columns, faults = one.apply([value.encode() for value in values], kind)
    texts = [[value.decode() for value in column] for column in columns]
    return texts[0] if len(texts) == 1 else texts, {place: fault.code for place, fault in faults.items()}


@pytest.mark.feature("S2-29")
@pytest.mark.parametrize(
    ("operation", "before", "after"),
    [
        ("trim", [" a ", "b", "\t"], ["a", "b", ""]),
        ("trim", ["\u00a0é\u00a0", ""], ["é", ""]),
        ("lowercase", ["ÀB", "X"], ["àb", "x"]),
        ("uppercase", ["straße", "x"], ["STRASSE", "X"]),
        (
            "title_case",
            ["aDA o'brien", "jean-luc", "don't", "3RD st", "élodie d’arcy", ""],
            ["Ada O'Brien", "Jean-Luc", "Don't", "3rd St", "Élodie D’Arcy", ""],
        ),
        ("default", ["", "x"], ["DE", "x"]),
    ],
)
def test_text_is_spelt_another_way(operation: str, before: list[str], after: list[str]) -> None:
    options = {"value": "DE"} if operation == "default" else {}

    assert changed(operation, *before, **options) == (after, {})


@budget(max_examples=40)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)))
@pytest.mark.parametrize(("operation", "each"), [("lowercase", str.lower), ("uppercase", str.upper)])
def test_a_column_at_once_is_each_value_by_itself(operation: str, each: Any, values: list[str]) -> None:
    assert changed(operation, *values) == ([each(value) for value in values], {})


@pytest.mark.feature("S2-29")
def test_telephone_numbers_become_e164_or_a_fault() -> None:
    values = ["030 901820", "+1 (202) 456-1111", "", "12", "call me"]

    assert changed("format_phone", *values, region="DE") == (
        ["+4930901820", "+12024561111", "", "", ""],
        {3: "transform.phone", 4: "transform.phone"},
    )
    assert changed("format_phone", "030 901820") == ([""], {0: "transform.phone"})


@pytest.mark.parametrize(
    ("options", "value", "expected"),
    [
        ({"formats": ["%d.%m.%Y"]}, "31.5.2024", "2024-05-31"),
        ({"formats": ["%m/%d/%y", "%d %B %Y"]}, "3 March 2024", "2024-03-03"),
        ({"formats": ["%d.%m.%Y %H:%M"]}, "31.05.2024 12:30", "2024-05-31T12:30:00+00:00"),
        ({"formats": ["%d.%m.%Y %H:%M"], "zone": "Europe/Berlin"}, "31.05.2024 12:30", "2024-05-31T12:30:00+02:00"),
        ({"formats": ["%d.%m.%Y %H:%M"], "kind": ColumnType.DATE}, "31.05.2024 12:30", "2024-05-31"),
        ({"formats": ["%Y-%m-%dT%H:%M:%S%z"]}, "2024-05-31T12:30:00-0500", "2024-05-31T12:30:00-05:00"),
    ],
)
def test_dates_are_read_as_they_are_written(options: dict[str, Any], value: str, expected: str) -> None:
    assert changed("parse_date", value, "", **options) == ([expected, ""], {})


def test_a_date_of_no_format_is_a_fault() -> None:
    assert changed("parse_date", "32.01.2024", "31.01.2024", formats=["%d.%m.%Y"]) == (
        ["", "2024-01-31"],
        {0: "transform.date"},
    )


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, [["Ada", "Bo", ""], ["King Lovelace", "", ""]]),
        ({"from_end": True}, [["Ada King", "Bo", ""], ["Lovelace", "", ""]]),
    ],
)
def test_a_field_is_split_into_columns(options: dict[str, Any], parts: list[list[str]]) -> None:
    assert changed("split", "Ada King Lovelace", " Bo ", "", into=["a", "b"], **options) == (parts, {})


@pytest.mark.feature("S2-29")
@pytest.mark.parametrize(
    "options",
    [
        {"operation": "rot13"},
        {"operation": "format_phone", "region": "de"},
        {"operation": "parse_date", "formats": ["%d.%m."]},
        {"operation": "parse_date", "formats": ["%Q%Y%m%d"]},
        {"operation": "parse_date", "formats": ["%d.%m.%Y"], "zone": "Mars/Base"},
        {"operation": "parse_date", "formats": ["%d.%m.%Y"], "zone": "../x"},
        {"operation": "split", "into": ["a", "a"]},
        {"operation": "trim", "into": ["a", "b"]},
    ],
)
def test_a_change_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TRANSFORM.validate_python({"field": "f", **options})
