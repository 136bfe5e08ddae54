"""A contacts file to try Haulier with: the same bytes at every run, most rows good, some bad in six ways."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEADERS: Final = (
    "id",
    "uuid",
    "first_name",
    "last_name",
    "email",
    "title",
    "departments",
    "mobile_phone",
    "email_status",
    "seniority",
    "city",
    "state",
    "country",
    "linkedin_url",
    "created_at",
)
BAD_KINDS: Final = ("ragged", "bad e-mail", "bad number", "bad date", "over-long", "bad UTF-8")
COUNTRIES: Final = ("Germany", "France", "Spain", "Italy", "Austria", "Poland", "Netherlands", "Sweden", "Brazil")

_SEED: Final = 4
_BAD_EVERY: Final = 200
_BAD_AT: Final = 117
_RECURS_EVERY: Final = 250
_RECURS_AT: Final = 33
_RECURS_AFTER: Final = 20
_UUID_PREFIX: Final = "5eed0004-0000-4000-8000-"
_FIRST: Final = ("Anna", "Zoë", "José", "Mia", "Jürgen", "Lena", "Paweł", "Ines", "Noah", "Chloé", "Åsa", "Tom", "Eva")
_LAST: Final = ("Müller", "Rossi", "García", "O'Neil", "Nowak", "Dubois", "van Dijk", "Öberg", "Silva", "Schmidt")
_TITLES: Final = (
    "Engineer",
    '"Head of Sales, EMEA"',
    "Buyer",
    '"Chief ""Data"" Officer"',
    "Analyst",
    "Account Manager",
)
_DEPARTMENTS: Final = ("Sales", '"Sales, Marketing"', "Engineering", "", "Finance", '"Operations, Support"')
_STATUS: Final = ("verified", "guessed", "", "bounced")
_SENIORITY: Final = ("entry", "senior", "manager", "director", "c_suite")
_CITIES: Final = ("Berlin", "Lyon", "Madrid", "Torino", "Graz", "Kraków", "Utrecht", "Malmö", "São Paulo", "Hamburg")
_STATES: Final = ("", "BY", "Île-de-France", "CM", "SP", "NRW")


@dataclass(frozen=True, slots=True)
class Made:
    """A file that was made.

    Args:
        rows: Records below the header, the bad ones among them.
        bad: How many of each kind of bad row.
        recurring: Good rows that bring the key of an earlier good row with another title.
    """

    path: Path
    rows: int
    bad: dict[str, int]
    recurring: int
    size_bytes: int

    @property
    def keys(self) -> int:
        """Rows that a table holds of it: one for each key of a good row."""
        return self.rows - sum(self.bad.values()) - self.recurring


def make(path: Path, *, rows: int) -> Made:
    """Write a file of ``rows`` records and a header."""
    bad: Counter[str] = Counter()
    recurring = 0
    with path.open("wb") as file:
        file.write((",".join(HEADERS) + "\n").encode())
        for number, fields in enumerate(_rows(rows)):
            if _is_bad(number):
                kind = BAD_KINDS[number // _BAD_EVERY % len(BAD_KINDS)]
                bad[kind] += 1
                file.write(_spoilt(fields, kind))
                continue
            recurring += _recurs(number)
            file.write((",".join(fields) + "\n").encode())
    return Made(path, rows, dict(bad), recurring, path.stat().st_size)


def _is_bad(number: int) -> bool:
    return number % _BAD_EVERY == _BAD_AT


def _recurs(number: int) -> bool:
    """Whether this row has the key of the row 20 before it; only where both are good and that one is no repeat."""
    return number % _RECURS_EVERY == _RECURS_AT and not _is_bad(number) and not _is_bad(number - _RECURS_AFTER)


def _rows(rows: int) -> Iterator[list[str]]:
    draw = random.Random(_SEED).random  # noqa: S311 - the same file at every run is the point
    for number in range(rows):
        key = number - _RECURS_AFTER if _recurs(number) else number
        first = _FIRST[int(draw() * len(_FIRST))]
        last = _LAST[int(draw() * len(_LAST))]
        place = int(draw() * 1_000_000)
        yield [
            str(key + 1),
            f"{_UUID_PREFIX}{key:012x}",
            first,
            last,
            f"contact{key}@example{place % 97}.com",
            "Promoted" if key != number else _TITLES[place % len(_TITLES)],
            _DEPARTMENTS[place // 7 % len(_DEPARTMENTS)],
            f"+49 30 {place:07d}" if place % 3 else "",
            _STATUS[place % len(_STATUS)],
            _SENIORITY[place // 3 % len(_SENIORITY)],
            _CITIES[place // 11 % len(_CITIES)],
            _STATES[place // 13 % len(_STATES)],
            COUNTRIES[place // 17 % len(COUNTRIES)],
            f"https://www.linkedin.com/in/contact-{key}",
            f"{2020 + place % 7}-{1 + place % 12:02}-{1 + place % 28:02}T{place % 24:02}:{place % 60:02}:00Z",
        ]


def _spoilt(fields: list[str], kind: str) -> bytes:
    """The row with one fault, as a line."""
    row = list(fields)
    if kind == "ragged":
        row = row[:-2]
    elif kind == "bad e-mail":
        row[HEADERS.index("email")] = "no at sign"
    elif kind == "bad number":
        row[HEADERS.index("id")] = "12x4"
    elif kind == "bad date":
        row[HEADERS.index("created_at")] = "2026-13-45T10:00:00Z"
    elif kind == "over-long":
        row[HEADERS.index("email")] = "a" * 320 + "@example.com"
    line = ",".join(row).encode() + b"\n"
    return line.replace(fields[2].encode(), b"Ren\xe9", 1) if kind == "bad UTF-8" else line


def key_range(made: Made) -> tuple[str, str]:
    """The least and the greatest ``uuid`` that a row of the file can have."""
    return f"{_UUID_PREFIX}{0:012x}", f"{_UUID_PREFIX}{made.rows:012x}"
