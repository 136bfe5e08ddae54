"""A table's index built anew beside the one in use, proved to hold the same, and put in its place at one moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane.context import ImportContext
from app.dataplane.mirror.documents import document_of, hash_of, id_of, key_texts, mapping_of
from app.dataplane.mirror.feeding import Feed, entries
from app.dataplane.mirror.server import Operation, Refusal, SearchServer, read_json
from app.dataplane.postgres_errors import retried
from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.parser import parse
from app.dataplane.walking import Key, Walk
from app.domain.errors import JobError, TransientError
from app.domain.tables import Table
from app.persistence import ledger, mirrors
from app.persistence.jobs import advance

COUNTERS: Final = ("read", "mirrored", "refused")
_PAGE_ROWS: Final = 5_000
_MOST_REFUSED: Final = 1_000
_MODULUS: Final = 2**64
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Proof:
    """Rows of the table that were not refused and documents of the index, each counted and summed up."""

    rows: int
    documents: int
    row_checksum: int
    document_checksum: int

    @property
    def holds(self) -> bool:
        """Whether both are the same."""
        return (self.rows, self.row_checksum) == (self.documents, self.document_checksum)


@dataclass(slots=True)
class _Sum:
    """Documents counted and summed up, in whatever order."""

    count: int = 0
    checksum: int = 0

    def add(self, document_id: str, content: Any) -> None:
        """Count a document."""
        self.count += 1
        self.checksum = (self.checksum + hash_of(document_id, content)) % _MODULUS


def rebuild(context: ImportContext, table: Table) -> tuple[Proof, int]:
    """Build the index of a table anew, which has a mirror; the proof and how many documents were refused.

    While the rows are walked over, every change goes to both indexes; so the new one misses none. A job that is killed
    goes on behind its last page.

    Raises:
        TransientError: ``mirror.differs``: rows were changed meanwhile; ``mirror.busy``: another job builds the index;
            ``mirror.unavailable``.
        JobError: ``mirror.too_many_refused``, ``mirror.failed``.
        FenceLost: Another worker has the job.
    """
    return _Rebuild(context, table).run()


class _Rebuild:
    def __init__(self, context: ImportContext, table: Table) -> None:
        self._context = context
        self._table = table
        self._tenant = context.job.tenant
        self._server = SearchServer(context.settings, context, context.wait)
        self._feed = Feed(context, self._server, table)
        self._index = f"{self._feed.alias}-{context.id.hex}"
        self._walk = Walk(self._tenant, table, parse({}, Catalogue(table), pointer=""))
        state = (context.job.checkpoint or {}).get("rebuild") or {}
        self._after: Key | None = tuple(state["after"]) if state.get("after") else None
        self._refused: set[str] = set(state.get("refused", ()))

    def run(self) -> tuple[Proof, int]:
        self._begin()
        while self._retried(self._page):
            self._context.check()
        while self._feed.once(of=None):
            self._context.check()
        self._say("comparing")
        self._server.refresh(self._index)
        proof = self._prove()
        if not proof.holds:
            self._say("differs", checkpoint={"rebuild": None})
            raise TransientError(
                f"{proof.rows} rows of {self._table.name} and {proof.documents} documents differ",
                code="mirror.differs",
                data={"row_checksum": str(proof.row_checksum), "document_checksum": str(proof.document_checksum)},
            )
        self._take_over()
        return proof, len(self._refused)

    def _retried(self, write: Callable[[], _T]) -> _T:
        return retried(write, again=self._context.check, what=f"the mirror of {self._table.name}")

    def _begin(self) -> None:
        """Have an index, and every change from now on written to it."""
        job = self._context.job
        self._feed.prepare(anew=True)
        self._server.make(self._index, mapping_of(self._table))
        with self._context.sessions.begin() as session:
            mirror = mirrors.find(session, self._tenant, self._table.name)
            if mirror is not None and mirror.index == self._index:
                return  # killed after it took over
            if not mirrors.begin_building(session, job, self._table.name, self._index):
                raise TransientError(f"another job builds the mirror of {self._table.name}", code="mirror.busy")
            signals = advance(session, job, stage="copying")
        self._context.heed(signals)

    def _page(self) -> bool:
        """Write the next rows; whether there were any."""
        with self._context.sessions.begin() as session:
            version = mirrors.begin_reading(session, self._tenant, self._table.name)
            rows = self._rows(session, self._after)
        if not rows:
            return False
        operations = [Operation(row.id, row.document, version) for row in rows]
        refused = self._server.write(self._index, operations)
        self._keep(operations, refused, after=rows[-1].key)
        return True

    def _rows(self, session: Session, after: Key | None) -> Sequence[Any]:
        """The next rows: ``id``, ``document`` and ``key``."""
        keys = key_texts(self._table, "m.")
        columns = [f"{id_of(keys)} AS id", f"{document_of('m')} AS document", f"ARRAY[{', '.join(keys)}] AS key"]
        page = self._walk.page(columns, after=after, limit=_PAGE_ROWS)
        return session.execute(text(page.sql), page.parameters).all()

    def _keep(self, operations: list[Operation], refused: Mapping[int, Refusal], *, after: list[str]) -> None:
        ids = self._refused | {operations[place].id for place in refused}
        if len(ids) > _MOST_REFUSED:
            raise JobError(f"more than {_MOST_REFUSED} documents were refused", code="mirror.too_many_refused")
        job, new = self._context.job, entries(refused, operations)
        counts = {"read": len(operations), "mirrored": len(operations) - len(refused), "refused": len(refused)}
        with self._context.sessions.begin() as session:
            ledger.add_documents(session, self._tenant, job.id, new)
            signals = advance(
                session,
                job,
                rows=len(operations),
                failed=len(refused),
                counters=counts,
                checkpoint={"rebuild": {"after": after, "refused": sorted(ids)}},
            )
        self._after, self._refused = tuple(after), ids
        self._context.heed(signals)

    def _prove(self) -> Proof:
        """Compare what stands in both stores."""
        rows, documents = _Sum(), _Sum()
        after: Key | None = None
        with self._context.sessions.begin() as session:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            while True:
                self._context.check()
                found = self._rows(session, after)
                for row in found:
                    if row.id not in self._refused:
                        rows.add(row.id, read_json(row.document))
                if not found:
                    break
                after = tuple(found[-1].key)
        for hits in self._server.documents(self._index):
            self._context.check()
            for document_id, content in hits:
                documents.add(document_id, content)
        return Proof(rows.count, documents.count, rows.checksum, documents.checksum)

    def _say(self, stage: str, **what: Any) -> None:
        with self._context.sessions.begin() as session:
            signals = advance(session, self._context.job, stage=stage, **what)
        self._context.heed(signals)

    def _take_over(self) -> None:
        """Lead searches to the new index at one moment, then changes to it alone; then the old one goes."""
        self._server.point(self._feed.alias, self._index)
        with self._context.sessions.begin() as session:
            mirrors.end_building(session, self._tenant, self._table.name, self._index)
            signals = advance(session, self._context.job)
        self._context.heed(signals)
        self._feed.prepare()
