from __future__ import annotations

import random
from itertools import permutations

import pytest

from app.dataplane.auto_map import AutoMap, _cheapest, propose
from app.domain.tables import CONTACTS

CONTACT_NAMES = {**{name: name for name in CONTACTS.column_names}, **CONTACTS.aliases}


def mapped(headers: list[str], names: dict[str, str] | None = None, **options: object) -> dict[str, str | None]:
    proposals = propose(headers, CONTACT_NAMES if names is None else names, AutoMap.model_validate(options))
    return {proposal.header: proposal.column for proposal in proposals}


@pytest.mark.feature("S2-19")
@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("E-mail", "email"),
        ("email_address", "email"),
        ("E-Mail Address", "email"),
        ("First", "first_name"),
        ("FirstName", "first_name"),
        ("LAST NAME", "last_name"),
        ("frist name", "first_name"),
        ("Phone No.", "mobile_phone"),
        ("Country (name)", "country"),
    ],
)
def test_a_header_finds_the_column_that_it_means(header: str, column: str) -> None:
    assert mapped([header]) == {header: column}


@pytest.mark.feature("S2-20")
def test_what_is_less_sure_than_the_threshold_is_left_out_with_the_column_it_is_nearest_to() -> None:
    [strict] = propose(["email_address"], CONTACT_NAMES, AutoMap(threshold=0.95))
    [mild] = propose(["email_address"], CONTACT_NAMES, AutoMap(threshold=0.9))

    assert (strict.column, strict.nearest, strict.confidence) == (None, "email", 0.9)
    assert (mild.column, mild.by, mild.confidence) == ("email", "fuzzy", 0.9)


@pytest.mark.feature("S2-21")
def test_exact_looks_past_spelling_alone() -> None:
    headers = ["E-mail", "frist name"]

    assert mapped(headers, strategy="exact") == {"E-mail": "email", "frist name": None}
    assert mapped(headers, strategy="fuzzy") == {"E-mail": "email", "frist name": "first_name"}


def test_no_column_is_given_twice_and_the_sum_is_the_best() -> None:
    names = {"home_phone": "home_phone", "home_phones": "home_phones"}

    assert mapped(["home phones", "home phone"], names) == {"home phones": "home_phones", "home phone": "home_phone"}
    assert mapped(["hme_phones", "hme_phone"], names) == {"hme_phones": "home_phones", "hme_phone": "home_phone"}
    assert mapped(["E-mail", "e mail"]) == {"E-mail": "email", "e mail": None}


def test_names_with_other_numbers_are_never_alike() -> None:
    assert mapped(["address2"], {"address1": "address1"}) == {"address2": None}


def test_a_thousand_headers_like_one_another_are_mapped_too() -> None:
    names = {f"column_{a}{b}": f"column_{a}{b}" for a in "abcdefghijklmnopqrst" for b in "abcdefghij"}

    found = mapped([f"colum_{name[-2:]}" for name in names], names)

    assert len({column for column in found.values() if column}) == len(names)


def test_the_assignment_is_the_cheapest_of_all() -> None:
    chosen = random.Random(4)
    for _ in range(60):
        rows = chosen.randint(1, 4)
        width = rows + chosen.randint(0, 2)
        costs = [[chosen.randint(-9, 9) / 10 for _ in range(width)] for _ in range(rows)]

        found = _cheapest(costs)

        least = min(
            sum(costs[row][column] for row, column in enumerate(way)) for way in permutations(range(width), rows)
        )
        assert len(set(found)) == rows
        assert sum(costs[row][column] for row, column in enumerate(found)) == pytest.approx(least)
