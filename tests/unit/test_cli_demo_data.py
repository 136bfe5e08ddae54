"""The generated contacts file is what it says of itself."""

from __future__ import annotations

import csv
from pathlib import Path

from app.cli.demo_data import BAD_KINDS, HEADERS, key_range, make
from app.domain.tables import CONTACTS


def test_two_files_of_one_size_are_the_same_bytes(tmp_path: Path) -> None:
    made = [make(tmp_path / name, rows=3_000) for name in ("a.csv", "b.csv")]

    assert made[0].path.read_bytes() == made[1].path.read_bytes()
    assert made[0].size_bytes == (tmp_path / "a.csv").stat().st_size


def test_the_headers_are_fifteen_columns_of_contacts() -> None:
    assert len(HEADERS) == 15
    assert set(HEADERS) <= set(CONTACTS.column_names)


def test_one_row_in_two_hundred_is_bad_and_every_kind_is_there(tmp_path: Path) -> None:
    made = make(tmp_path / "a.csv", rows=6_000)

    assert made.bad == dict.fromkeys(BAD_KINDS, 5)
    assert sum(made.bad.values()) == 6_000 * 5 // 1_000


def test_the_good_rows_hold_as_many_keys_as_it_says(tmp_path: Path) -> None:
    made = make(tmp_path / "a.csv", rows=6_000)
    text = made.path.read_bytes().decode("utf-8", errors="surrogateescape")
    rows = list(csv.reader(text.splitlines()))[1:]

    good = [
        row
        for row in rows
        if len(row) == 15
        and row[0].isdigit()
        and 3 < len(row[4]) < 320
        and "@" in row[4]
        and "-13-" not in row[14]
        and not any(0xDC80 <= ord(character) <= 0xDCFF for character in row[2])
    ]
    keys = {row[1] for row in good}

    assert len(rows) == made.rows
    assert len(good) == made.rows - sum(made.bad.values())
    assert len(keys) == made.keys
    assert made.recurring > 0
    assert key_range(made)[0] <= min(keys) <= max(keys) <= key_range(made)[1]
