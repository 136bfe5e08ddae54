"""The books of a job: that every record it read is accounted for, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.dataplane.plan import Plan
from app.domain.errors import JobError
from app.domain.jobs import Job
from app.persistence import imports

FATES: Final = ("loaded", "updated", "unchanged", "superseded", "skipped", "failed")
"""What becomes of a record: a new row, a changed one, one as it was, overtaken by a later line, left out, refused."""


@dataclass(frozen=True, slots=True)
class Books:
    """How many records were read, and what became of them."""

    read: int
    loaded: int
    updated: int
    unchanged: int
    superseded: int
    skipped: int
    failed: int

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, ``read`` first."""
        return {name: getattr(self, name) for name in ("read", *FATES)}


def close(session: Session, job_id: UUID, plan: Plan, *, records: int, end_byte: int) -> Books:
    """The books of a load whose file was read to its end.

    Args:
        records: Records of the file; ``end_byte`` its size after decompression.
    Raises:
        JobError: ``import.books_do_not_balance``, with the figures: a record is missing or counted twice.
    """
    totals = imports.totals(session, job_id)
    books = Books(**{name: totals.get(name, 0) for name in ("read", *FATES)})
    wrong = _wrong_sums(books, records) + _wrong_tiles(session, job_id, plan, end_byte, some=records > 0)
    if wrong:
        raise JobError(
            f"the books do not balance: {'; '.join(wrong)}",
            code="import.books_do_not_balance",
            hint="This is a fault of Haulier: the rows are in the table, but their count cannot be vouched for.",
            data={"books": books.as_dict(), "records": records, "wrong": wrong},
        )
    return books


def of_counters(job: Job, counters: Sequence[str], *, rows: str) -> dict[str, int]:
    """The books of a job that keeps them as its counters: what it read, and what became of that.

    Args:
        rows: What is true of the rows although the books are wrong, for a person.
    Raises:
        JobError: As ``close``.
    """
    books = {name: job.counters.get(name, 0) for name in counters}
    if books[counters[0]] != sum(books[fate] for fate in counters[1:]):
        raise JobError(
            f"the books do not balance: {books}",
            code="import.books_do_not_balance",
            hint=f"This is a fault of Haulier: the rows are {rows}, but their count cannot be vouched for.",
            data={"books": books},
        )
    return books


def _wrong_sums(books: Books, records: int) -> list[str]:
    fates = sum(getattr(books, name) for name in FATES)
    wrong = []
    if books.read != records:
        wrong.append(f"the file has {records} records, the books {books.read}")
    if books.read != fates:
        wrong.append(f"{books.read} records were read, {fates} have a fate")
    return wrong


def _wrong_tiles(session: Session, job_id: UUID, plan: Plan, end_byte: int, *, some: bool) -> list[str]:
    wrong = [
        f"lane {gap.lane}, batch {gap.batch} begins at line {gap.line}, byte {gap.byte}, "
        f"expected line {gap.expected_line}, byte {gap.expected_byte}"
        for gap in imports.gaps(session, job_id, first_line=plan.first_line, first_byte=plan.first_byte)
    ]
    ends = imports.ends(session, job_id)
    wrong += [
        f"lane {lane} ends at byte {ends.get(lane)}, the file at {end_byte}"
        for lane in range(plan.lanes if some else 0)
        if ends.get(lane) != end_byte
    ]
    return wrong
