"""Direct upserts: a few rows of a request into a table, at once, as an import would write them."""

from __future__ import annotations

from typing import Any, Final

from app.dataplane import direct
from app.dataplane.companions import Companions, check_companions
from app.dataplane.plan import Mode
from app.dataplane.postgres_errors import POSTGRES_ERRORS, retried, sqlstate
from app.domain.errors import InvalidRequestError, Problem, TransientError, UnavailableError
from app.domain.tables import ColumnType, Table
from app.persistence import picker_values
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from config.settings import Settings

MAX_ROWS: Final = 1_000
_CANCELLED: Final = "57014"


class Upserts:
    """The use case of rows that come in a request."""

    def __init__(self, sessions: Sessions, tables: Tables, settings: Settings) -> None:
        self._sessions = sessions
        self._tables = tables
        self._settings = settings

    def upsert(
        self,
        tenant: str,
        table: str,
        rows: list[dict[str, Any]],
        *,
        mode: Mode = Mode.UPSERT,
        companions: bool = False,
        pointer: str = "/data",
    ) -> dict[str, Any]:
        """Write every good row in one transaction and say what is wrong with the others.

        Args:
            rows: At most 1,000, by column name; a column that a row lacks keeps its value. Of rows with one key the
                last wins.
            companions: Take the columns of the rows beside them too, a contact's ``company_*``.
            pointer: Where ``rows`` stands in the request.
        Returns:
            ``inserted``, ``updated``, ``unchanged``, ``superseded`` (overtaken by a later row) and ``skipped`` (by the
            mode) count the good rows; ``failed`` has an entry for each bad one: ``row`` (from 0), ``field``, ``code``,
            ``message``; ``uuids`` the rows' keys in order, ``None`` for bad ones, or ``None`` when the table's key is
            something else than one UUID; with companions ``companies_inserted`` and ``companies_updated``.
        Raises:
            InvalidRequestError: ``upsert.too_many_rows``, ``upsert.column_invalid``, ``companions.unsupported``.
            NotFoundError: The tenant has no such table.
            UnavailableError: Other writers held the rows, or Postgres is away; nothing was written.
        """
        if len(rows) > MAX_ROWS:
            raise InvalidRequestError(
                f"at most {MAX_ROWS:,} rows can be upserted in a request, got {len(rows):,}",
                code="upsert.too_many_rows",
                hint="Send several requests, or import a file.",
                problems=(Problem(pointer, f"expected at most {MAX_ROWS} rows, got {len(rows)}"),),
            )
        declared = self._tables.get(tenant, table)
        beside = self._companions(tenant, declared, mode) if companions else None
        prepared = direct.prepare(rows, declared, beside, pointer=pointer)
        written = self._write(tenant, declared, prepared, mode, beside)
        return _report(len(rows), declared, prepared, written, beside)

    def _companions(self, tenant: str, table: Table, mode: Mode) -> Companions:
        beside = check_companions(table, upserts=mode is Mode.UPSERT, pointer="/companions")
        self._tables.get(tenant, beside.table.name)  # makes it, at its first use
        return beside

    def _write(
        self, tenant: str, table: Table, prepared: direct.Prepared, mode: Mode, beside: Companions | None
    ) -> direct.Written:
        timeout_s = self._settings.statement_timeout_s

        def write() -> direct.Written:
            with self._sessions.begin() as session:
                for written in (table, *((beside.table,) if beside else ())):
                    if written.has_pickers:
                        picker_values.touch(session, tenant, written.name, None)
                return direct.write(
                    session,
                    tenant,
                    table,
                    prepared,
                    mode=mode,
                    companions=beside.table if beside else None,
                    timeout_s=timeout_s,
                )

        try:
            return retried(write, again=_try_again, what="the request")
        except TransientError as error:
            raise UnavailableError(error.detail, code=error.code) from error
        except POSTGRES_ERRORS as error:
            if sqlstate(error) == _CANCELLED:
                detail = f"the rows could not be written in {timeout_s:g} s; other writers may hold them"
                raise UnavailableError(detail, code="upsert.timeout") from error
            raise UnavailableError("the connection to Postgres was lost; nothing was written") from error


def _try_again() -> None:
    """Nothing stands between two attempts."""


def _report(
    count: int, table: Table, prepared: direct.Prepared, written: direct.Written, beside: Companions | None
) -> dict[str, Any]:
    counts = written.counts
    faults = {**prepared.faults, **written.refused}
    report: dict[str, Any] = {
        "inserted": counts["loaded"],
        **{fate: counts[fate] for fate in ("updated", "unchanged", "superseded", "skipped")},
        "failed": [
            {"row": place, "field": fault.field, "code": fault.code, "message": fault.message}
            for place, fault in sorted(faults.items())
        ],
        "uuids": None,
    }
    if beside is not None:
        name = beside.table.name
        report |= {f"{name}_inserted": counts[f"{name}_loaded"], f"{name}_updated": counts[f"{name}_updated"]}
    key = table.column(table.key[0])
    if len(table.key) == 1 and key is not None and key.type is ColumnType.UUID:
        keys = prepared.keys()
        report["uuids"] = [keys[place].decode() if place not in faults else None for place in range(count)]
    return report
