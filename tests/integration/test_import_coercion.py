from __future__ import annotations

import random

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.dataplane.grammar import Refused, coerce_value
from app.domain.tables import Column, ColumnType
from app.persistence.sessions import Sessions

PIECES = {
    ColumnType.INTEGER: ["1", "-", "+", "9", "0", " ", ".", "e", "2147483647", "_"],
    ColumnType.BIGINT: ["1", "-", "+", "9223372036854775807", "0", " ", "."],
    ColumnType.NUMERIC: ["1", "-", ".", "e", "E+", "0", "99", "nan", "inf", " ", "20000", "131072", "16383"],
    ColumnType.DOUBLE: ["1", "-", ".", "e", "308", "-324", "0", "nan", "inf", "infinity", " "],
    ColumnType.BOOLEAN: ["t", "r", "ue", "f", "alse", "y", "es", "n", "o", "ff", "1", "0", " ", "T"],
    ColumnType.DATE: ["2024", "0001", "-02", "-2", "-29", "-31", "/", "1", "infinity", " ", "12"],
    ColumnType.TIMESTAMPTZ: [
        "2024-02-29", "2023-12-31", "294276-12-31", "T", " ", "12:30", "24:00", ":00", ":59", ".5", ".123456789", "Z",
        "+05:30", "-15:59", "+16", "+0530", "UTC", "infinity",
    ],
    ColumnType.UUID: ["123e4567", "-", "e89b", "12d3", "A456", "426614174000", "{", "}", "0000"],
    ColumnType.JSON: ["{", "}", "[", "]", ",", ":", '"a"', "1", "1.5", "true", "null", " ", "-", '"\\ud83d\\ude00"'],
    ColumnType.TEXT_ARRAY: ["{", "}", "[", "]", ",", ";", '"', "a", " ", "\\", "null", "é", '"a"'],
}  # fmt: skip


def test_postgres_takes_whatever_is_not_refused(sessions: Sessions) -> None:
    chosen = random.Random(11)
    wrong = []
    with sessions.begin() as session:
        for kind, pieces in PIECES.items():
            for _ in range(600):
                value = "".join(chosen.choices(pieces, k=chosen.randrange(1, 7)))
                try:
                    given = coerce_value(value, Column("c", kind))
                except Refused:
                    continue
                try:
                    with session.begin_nested():
                        session.execute(text(f"SELECT CAST(:value AS {kind.sql})"), {"value": given})
                except DBAPIError as error:
                    wrong.append((kind.value, value, given, str(error.orig)))

    assert wrong == []


def test_plain_values_of_every_type_are_not_refused(sessions: Sessions) -> None:
    with sessions.begin() as session:
        rows = session.execute(
            text(
                """
                SELECT (g * 7919)::int::text, (g * 1e15)::bigint::text, (g / 7.0)::numeric::text, random()::text,
                       (g % 2 = 0)::text, (date '1900-01-01' + g * 37)::text,
                       (timestamptz '1900-01-01' + g * interval '37 hours 11 seconds')::text, gen_random_uuid()::text,
                       jsonb_build_object('k', g, 'é', ARRAY[1.5, NULL])::text, ARRAY['a b', g::text, NULL, 'q"']::text
                FROM generate_series(-500, 500) AS g
                """
            )
        ).all()

    for row in rows:
        for kind, value in zip(PIECES, row, strict=True):
            assert coerce_value(value, Column("c", kind)) is not None
