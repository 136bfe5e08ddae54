"""The ledger as a CSV file: what is known of each refused row, then the file's own columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from uuid import UUID

from app.dataplane.faults import Fault
from app.dataplane.plan import Plan
from app.dataplane.single import texts_of
from app.domain.failed_records import FailedRecord, record_id

COLUMNS: Final = (
    "id",
    "line",
    "first_byte",
    "end_byte",
    "field",
    "stage",
    "code",
    "message",
    "raw",
    "raw_is_base64",
    "raw_missing",
    "corrected",
    "resolved_by",
    "resolved_at",
)
_ROWS_A_CHUNK: Final = 500


def own_columns(plan: Plan | None) -> Mapping[str, str]:
    """What each of the file's own columns is called in the ledger's file, by its name: ``row.code`` for ``code``."""
    called: dict[str, str] = {}
    taken = set(COLUMNS)
    for name in plan.names if plan else ():
        label = name
        while label in taken:
            label = f"row.{label}"
        taken.add(label)
        called[name] = label
    return called


def as_csv(job_id: UUID, records: Iterable[FailedRecord], plan: Plan | None) -> Iterator[str]:
    """The file in pieces; a row that cannot be read has nothing in the file's own columns.

    Args:
        records: With the texts that the ledger did not keep, as far as they can be had.
        plan: The import's; ``None`` for a job of another kind, whose records have no columns.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*COLUMNS, *own_columns(plan).values()])
    for number, record in enumerate(records, start=1):
        writer.writerow([*_known(job_id, record), *_own(record, plan)])
        if number % _ROWS_A_CHUNK == 0:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _known(job_id: UUID, record: FailedRecord) -> list[Any]:
    return [record_id(job_id, record.line), *(getattr(record, column) for column in COLUMNS[1:])]


def _own(record: FailedRecord, plan: Plan | None) -> list[str]:
    if plan is None:
        return []
    texts = texts_of(record, plan)
    return [""] * plan.width if isinstance(texts, Fault) else texts
