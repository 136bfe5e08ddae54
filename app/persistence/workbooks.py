"""Statements on workbooks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.domain.errors import ConflictError, NotFoundError
from app.domain.workbooks import Sheet, Workbook

_COLUMNS: Final = "tenant, name, sheets, created_by, created_at, updated_at"


def add(session: Session, tenant: str, name: str, sheets: Sequence[Sheet], *, created_by: str) -> Workbook:
    """Store a workbook.

    Raises:
        ConflictError: ``workbook.exists``: the tenant has one of this name.
    """
    row = session.execute(
        text(
            f"""
            INSERT INTO workbooks (tenant, name, sheets, created_by)
            VALUES (:tenant, :name, CAST(:sheets AS jsonb), :created_by)
            ON CONFLICT (tenant, name) DO NOTHING RETURNING {_COLUMNS}
            """
        ),
        {"tenant": tenant, "name": name, "sheets": _stored(sheets), "created_by": created_by},
    ).one_or_none()
    if row is None:
        raise ConflictError(f"there is a workbook {name!r} already", code="workbook.exists")
    return _workbook(row)


def change(session: Session, tenant: str, name: str, sheets: Sequence[Sheet]) -> Workbook:
    """Give a workbook other sheets.

    Raises:
        NotFoundError: The tenant has none of this name.
    """
    row = session.execute(
        text(
            f"""
            UPDATE workbooks SET sheets = CAST(:sheets AS jsonb), updated_at = clock_timestamp()
            WHERE tenant = :tenant AND name = :name RETURNING {_COLUMNS}
            """
        ),
        {"tenant": tenant, "name": name, "sheets": _stored(sheets)},
    ).one_or_none()
    if row is None:
        raise _none(name)
    return _workbook(row)


def of_tenant(session: Session, tenant: str) -> list[Workbook]:
    """A tenant's workbooks by name."""
    rows = session.execute(
        text(f"SELECT {_COLUMNS} FROM workbooks WHERE tenant = :tenant ORDER BY name"), {"tenant": tenant}
    )
    return [_workbook(row) for row in rows]


def get(session: Session, tenant: str, name: str, *, lock: bool = False) -> Workbook:
    """One workbook; ``lock`` keeps others from changing it until the transaction ends.

    Raises:
        NotFoundError: The tenant has none of this name.
    """
    row = session.execute(
        text(
            f"SELECT {_COLUMNS} FROM workbooks WHERE tenant = :tenant AND name = :name{' FOR UPDATE' if lock else ''}"
        ),
        {"tenant": tenant, "name": name},
    ).one_or_none()
    if row is None:
        raise _none(name)
    return _workbook(row)


def remove(session: Session, tenant: str, name: str) -> None:
    """Forget a workbook; its tables stay."""
    session.execute(
        text("DELETE FROM workbooks WHERE tenant = :tenant AND name = :name"), {"tenant": tenant, "name": name}
    )


def _stored(sheets: Sequence[Sheet]) -> str:
    return json.dumps([asdict(sheet) for sheet in sheets])


def _none(name: str) -> NotFoundError:
    return NotFoundError(f"there is no workbook {name!r}", code="workbook.not_found")


def _workbook(row: Row[Any]) -> Workbook:
    kept = {name: getattr(row, name) for name in _COLUMNS.split(", ")}
    return Workbook(**{**kept, "sheets": tuple(Sheet(**one) for one in kept["sheets"])})
