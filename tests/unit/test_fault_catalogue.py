"""The page of faults names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs/faults.md").read_text()
_ROWS = re.findall(r"^\| (\d+) \|.*$", _PAGE, re.MULTILINE)
_TESTS = re.findall(r"`(\w+/\w+\.py)::(test_\w+)`", _PAGE)


def test_every_row_of_the_catalogue_is_there() -> None:
    assert [int(row) for row in _ROWS] == [*range(1, 30), *range(46, 52)]


def test_every_test_that_the_page_names_exists() -> None:
    missing = [name for file, name in _TESTS if f"def {name}(" not in (_ROOT / "tests" / file).read_text()]

    assert missing == []
    assert len(_TESTS) > len(_ROWS)
