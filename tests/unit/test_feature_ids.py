"""Every row of the feature list is borne by a test or a bench, or stands among those that are owed with the reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

_TESTS = Path(__file__).parents[1]
_REST = "rest: "
"""Begins the reason of a row whose check is shown in part: what is said after it is still owed."""


def _table(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (_TESTS / name).read_text().splitlines()]


def _marks(path: Path) -> Iterator[str]:
    """The ids in the calls of ``pytest.mark.feature`` of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="mark"), attr="feature"), args=ids):
                yield from map(ast.literal_eval, ids)


_ROWS = _table("feature_rows.txt")
"""Id, group, key and a short text of every row; rows of one key ask for one thing."""
_OWED = _table("feature_rows_owed.txt")
"""Id of a row and the part that its check, or the rest of it, needs."""
_IDS = [row[0] for row in _ROWS]
_BORNE = {feature: path.name for path in _TESTS.rglob("*.py") for feature in _marks(path)}


def test_every_row_stands_in_the_list_once_and_whole() -> None:
    assert len(_IDS) == len(set(_IDS))
    assert [row for row in _ROWS if len(row) != 4 or not all(row)] == []


def test_every_id_that_a_test_bears_is_a_row() -> None:
    assert {feature: name for feature, name in _BORNE.items() if feature not in _IDS} == {}


def test_what_is_owed_are_rows_in_their_order_with_a_reason() -> None:
    owed = {row[0] for row in _OWED}

    assert [row for row in _OWED if len(row) != 2 or not row[1].strip()] == []
    assert [row[0] for row in _OWED] == [feature for feature in _IDS if feature in owed]


def test_every_row_is_borne_by_a_test_or_owed() -> None:
    owed = {row[0] for row in _OWED if not row[1].startswith(_REST)}

    assert sorted(set(_IDS) - _BORNE.keys() - owed) == []
    assert sorted(owed & _BORNE.keys()) == [], f"strike these, or begin what is left of them with {_REST!r}"


def test_of_what_is_owed_in_part_a_test_bears_the_other_part() -> None:
    in_part = {row[0] for row in _OWED if row[1].startswith(_REST)}

    assert sorted(in_part - _BORNE.keys()) == []
