"""Workbooks: named groups of tables, each filled by a sheet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.domain.errors import InvalidRequestError, Problem

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet by its name in the file, and the table that its rows go to."""

    sheet: str
    table: str


@dataclass(frozen=True, slots=True)
class Workbook:
    """A named group of tables.

    Args:
        sheets: At least one, no two with one name; several may go to one table.
    """

    tenant: str
    name: str
    sheets: tuple[Sheet, ...]
    created_by: str
    created_at: datetime
    updated_at: datetime


def check_workbook(name: str, sheets: Sequence[Sheet]) -> None:
    """Refuse a workbook that no file could be loaded by.

    Raises:
        InvalidRequestError: ``workbook.invalid``, with one problem per fault.
    """
    problems = [*_name_problems(name), *_sheet_problems(sheets)]
    if problems:
        raise InvalidRequestError("the workbook cannot be used", code="workbook.invalid", problems=tuple(problems))


def _name_problems(name: str) -> Iterator[Problem]:
    if not _NAME.fullmatch(name):
        yield Problem("/name", f"expected 1 to 63 small letters, digits, '-' and '_', got {name!r}")


def _sheet_problems(sheets: Sequence[Sheet]) -> Iterator[Problem]:
    if not sheets:
        yield Problem("/sheets", "expected at least one sheet, got none")
    seen: set[str] = set()
    for place, one in enumerate(sheets):
        if one.sheet in seen:
            yield Problem(f"/sheets/{place}/sheet", f"the sheet {one.sheet!r} stands there twice")
        seen.add(one.sheet)
