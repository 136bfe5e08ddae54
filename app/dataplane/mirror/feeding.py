"""What was written to a table goes to its mirror: read under a version, written, and then struck from what waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar
from uuid import UUID

from app.dataplane.context import ImportContext
from app.dataplane.loader import LEDGER_RAW_BYTES
from app.dataplane.mirror.documents import alias_of, changed, mapping_of
from app.dataplane.mirror.server import IndexMissingError, Operation, Refusal, SearchServer
from app.dataplane.postgres_errors import retried
from app.domain.tables import Table
from app.persistence import ledger, mirrors
from app.persistence.jobs import advance
from app.persistence.mirrors import Mirror

_MOST_ROWS: Final = 5_000
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Reading:
    """Changes, what their rows are now, and the indexes that are to have them."""

    changes: list[int]
    operations: list[Operation]
    indexes: tuple[str, ...]


class Feed:
    """Brings the changes of a table to its mirror, for a job.

    Killed anywhere it leaves changes that wait on, and are written again: under a higher version, to the same ids. A
    change is struck, counted and its refused documents put into the job's ledger in one transaction.
    """

    def __init__(self, context: ImportContext, server: SearchServer, table: Table) -> None:
        self._context = context
        self._server = server
        self._table = table
        self._tenant = context.job.tenant

    @property
    def table(self) -> Table:
        """The table."""
        return self._table

    @property
    def alias(self) -> str:
        """By what the documents are searched."""
        return alias_of(self._context.settings.mirror_prefix, self._tenant, self._table.name)

    def prepare(self, *, anew: bool = False) -> None:
        """Make the index, or tell it of new columns, and remove those that are not used any more.

        Args:
            anew: Make it again, should it be gone.
        Raises:
            JobError: ``mirror.index_missing``, ``mirror.failed``; ``TransientError``: ``mirror.unavailable``.
        """
        self._remove_retired()
        with self._context.sessions.begin() as session:
            mirrors.give_up_building(session, self._tenant, self._table.name)
        mirror = self._remove_retired()
        if mirror is None:
            return
        if mirror.is_made and not anew:
            self._server.widen(mirror.index, mapping_of(self._table))
        else:
            self._server.make(mirror.index, mapping_of(self._table))
            self._server.point(self.alias, mirror.index)
            with self._context.sessions.begin() as session:
                mirrors.note_made(session, mirror)

    def _remove_retired(self) -> Mirror | None:
        """Remove the index that is to go, if there is one; the mirror as it was."""
        mirror = self._mirror()
        if mirror is not None and mirror.retired is not None:
            self._server.remove(mirror.retired)
            with self._context.sessions.begin() as session:
                mirrors.note_removed(session, mirror)
        return mirror

    def once(self, *, of: UUID | None) -> bool:
        """Bring some changes to the mirror, the oldest first; whether there were any.

        Args:
            of: The job whose changes; ``None`` for those of requests and of jobs that are over.
        Raises:
            JobError: As ``prepare``; FenceLost: Another worker has the job.
        """
        reading = self._retried(lambda: self._read(of))
        if reading is None:
            return False
        refused: dict[int, Refusal] = {}
        try:
            for index in reading.indexes:
                refused |= self._server.write(index, reading.operations)
        except IndexMissingError:
            now = self._mirror()
            if now is not None and now.indexes == reading.indexes:
                raise
            return True  # another index has taken its place since
        self._retried(lambda: self._settle(reading, refused))
        return True

    def waiting(self) -> int:
        """Rows of the job that are not in the mirror yet."""
        with self._context.sessions.begin() as session:
            return mirrors.waiting(session, self._tenant, self._table.name, self._context.id)

    def _mirror(self) -> Mirror | None:
        with self._context.sessions.begin() as session:
            return mirrors.find(session, self._tenant, self._table.name)

    def _retried(self, write: Callable[[], _T]) -> _T:
        return retried(write, again=self._context.check, what=f"the mirror of {self._table.name}")

    def _read(self, of: UUID | None) -> _Reading | None:
        tenant, table = self._tenant, self._table.name
        with self._context.sessions.begin() as session:
            version = mirrors.begin_reading(session, tenant, table)
            mirror = mirrors.find(session, tenant, table)
            changes = mirrors.changes(session, tenant, table, of=of, most_rows=_MOST_ROWS)
            if mirror is None or not changes:
                return None
            # What was read of the table is at least as new as the changes: they were seen before.
            operations = changed(session, tenant, self._table, changes, version)
        return _Reading(changes, operations, mirror.indexes)

    def _settle(self, reading: _Reading, refused: Mapping[int, Refusal]) -> None:
        job = self._context.job
        with self._context.sessions.begin() as session:
            rows = mirrors.settle(session, reading.changes)
            failed = sum(reading.operations[place].times for place in refused)
            documents = ledger.add_documents(session, self._tenant, job.id, entries(refused, reading.operations))
            counts = dict(zip(counters(self._table.name), (rows - failed, failed), strict=True))
            signals = advance(session, job, failed=documents, counters=counts)
        self._context.heed(signals)


def remove_dropped(context: ImportContext, server: SearchServer, table: str) -> bool:
    """Remove the indexes of a table that was dropped; whether it was."""
    with context.sessions.begin() as session:
        mirror = mirrors.find(session, context.job.tenant, table)
    if mirror is None or not mirror.is_dropped:
        return False
    for index in filter(None, (*mirror.indexes, mirror.retired)):
        server.remove(index)
    with context.sessions.begin() as session:
        mirrors.forget(session, mirror)
    return True


def counters(table: str) -> tuple[str, str]:
    """What a job's counts of rows in the mirror, and of rows that it refused, are called."""
    return f"{table}_mirrored", f"{table}_mirror_refused"


def entries(refused: Mapping[int, Refusal], operations: Sequence[Operation]) -> list[ledger.Entry]:
    """What the ledger says of refused documents; the text of a record is the document."""
    found = []
    for place, refusal in sorted(refused.items()):
        document = operations[place].document or ""
        keeps = 0 < len(document.encode()) <= LEDGER_RAW_BYTES
        message = f"the search server refused the document {operations[place].id!r}: {refusal.message}"
        found.append(ledger.Entry(0, 0, 0, document if keeps else None, False, None, refusal.code, message))
    return found
