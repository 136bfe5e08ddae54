"""Workbooks: which sheet goes to which table, and imports of all of a file's sheets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from app.domain.errors import InvalidRequestError, NotFoundError, Problem
from app.domain.job_types import Submission
from app.domain.jobs import SubmitJob
from app.domain.retry import RetryChanges
from app.domain.workbooks import Sheet, Workbook, check_workbook
from app.persistence import changes
from app.persistence import workbooks as rows
from app.persistence.sessions import Sessions
from app.services.families import Families, Payload, SubmitBatch
from app.services.jobs import Jobs
from app.services.once import Submitted

IMPORT: Final = "import"
_SAID_BY_SHEETS: Final = ("table", "sheet", "mapping")
_FORMATS: Final = ("auto", "xlsx")


class Workbooks:
    """The use cases of workbooks.

    Args:
        submission: What a tenant's tables are asked of.
    """

    def __init__(
        self, sessions: Sessions, jobs: Jobs, families: Families, submission: Callable[[str], Submission]
    ) -> None:
        self._sessions = sessions
        self._jobs = jobs
        self._families = families
        self._submission = submission

    def create(self, tenant: str, name: str, sheets: Sequence[Sheet], *, actor: str) -> Workbook:
        """Name a group of tables.

        Raises:
            InvalidRequestError: ``workbook.invalid``; a table that is not there, with its pointer.
            ConflictError: ``workbook.exists``.
        """
        self._check(tenant, name, sheets)
        with self._sessions.begin() as session:
            made = rows.add(session, tenant, name, sheets, created_by=actor)
            changes.add(session, tenant, actor=actor, what=f"workbook {name}", before=None, after=_told(made))
            return made

    def change(self, tenant: str, name: str, sheets: Sequence[Sheet], *, actor: str) -> Workbook:
        """Give a workbook other sheets; imports that were submitted keep those of then.

        Raises:
            NotFoundError: The tenant has none of this name.
            InvalidRequestError: As ``create``.
        """
        self._check(tenant, name, sheets)
        with self._sessions.begin() as session:
            before = rows.get(session, tenant, name, lock=True)
            after = rows.change(session, tenant, name, sheets)
            what = f"workbook {name}"
            changes.add(session, tenant, actor=actor, what=what, before=_told(before), after=_told(after))
            return after

    def _check(self, tenant: str, name: str, sheets: Sequence[Sheet]) -> None:
        check_workbook(name, sheets)
        submission = self._submission(tenant)
        for place, one in enumerate(sheets):
            submission.table(one.table, pointer=f"/sheets/{place}/table")

    def of_tenant(self, tenant: str) -> list[Workbook]:
        """A tenant's workbooks by name."""
        with self._sessions.begin() as session:
            return rows.of_tenant(session, tenant)

    def get(self, tenant: str, name: str) -> Workbook:
        """One workbook.

        Raises:
            NotFoundError: The tenant has none of this name.
        """
        with self._sessions.begin() as session:
            return rows.get(session, tenant, name)

    def remove(self, tenant: str, name: str, *, actor: str) -> None:
        """Forget a workbook; its tables and their rows stay.

        Raises:
            NotFoundError: The tenant has none of this name.
        """
        with self._sessions.begin() as session:
            before = rows.get(session, tenant, name, lock=True)
            rows.remove(session, tenant, name)
            changes.add(session, tenant, actor=actor, what=f"workbook {name}", before=_told(before), after=None)

    def submit(self, request: SubmitJob, *, idempotency_key: str | None = None) -> Submitted:
        """``Jobs.submit``, but that an import into a workbook is a batch of imports, one for each of its sheets.

        Raises:
            InvalidRequestError: As ``Jobs.submit``; there is no such workbook, or the config says again what it says.
            ConflictError: A request with the same key is in flight.
        """
        name = request.config.get("workbook") if request.type == IMPORT else None
        if not isinstance(name, str):
            return self._jobs.submit(request, idempotency_key=idempotency_key)
        imports = [self._import(request, sheet) for sheet in self._named(request, name).sheets]
        for _, config in imports:
            self._jobs.checked(replace(request, config=config))
        batch = _batch(request, [_payload(request, sheet, config) for sheet, config in imports])
        return self._families.create_batch(batch, idempotency_key=idempotency_key)

    def _named(self, request: SubmitJob, name: str) -> Workbook:
        problems = list(_config_problems(request.config))
        if problems:
            raise InvalidRequestError(
                "the workbook says which sheet goes to which table", code="job.config_invalid", problems=tuple(problems)
            )
        try:
            return self.get(request.tenant, name)
        except NotFoundError as error:
            problem = Problem("/config/workbook", error.detail)
            raise InvalidRequestError(error.detail, code=error.code, problems=(problem,)) from None

    @staticmethod
    def _import(request: SubmitJob, sheet: Sheet) -> tuple[Sheet, dict[str, Any]]:
        own = {name: value for name, value in request.config.items() if name != "workbook"}
        return sheet, {**own, "format": "xlsx", **asdict(sheet)}


def _told(workbook: Workbook) -> list[dict[str, Any]]:
    return [asdict(sheet) for sheet in workbook.sheets]


def _config_problems(config: dict[str, Any]) -> Iterator[Problem]:
    for name in _SAID_BY_SHEETS:
        if name in config:
            yield Problem(f"/config/{name}", "expected nothing beside workbook, which says so for each sheet")
    if config.get("format", "auto") not in _FORMATS:
        yield Problem("/config/format", f"expected xlsx, of which a workbook is, got {config['format']!r}")


def _payload(request: SubmitJob, sheet: Sheet, config: dict[str, Any]) -> Payload:
    return Payload(
        type=IMPORT,
        config=config,
        name=sheet.sheet,
        attempt_timeout_s=request.attempt_timeout_s,
        concurrency_key=request.concurrency_key,
        max_concurrency=request.max_concurrency,
        resources=request.resources,
    )


def _batch(request: SubmitJob, payloads: Sequence[Payload]) -> SubmitBatch:
    return SubmitBatch(
        tenant=request.tenant,
        payloads=payloads,
        created_by=request.created_by,
        retry=request.retry if isinstance(request.retry, RetryChanges) else None,
        priority=request.priority,
        run_after=request.run_after,
        timeout_s=request.timeout_s,
        labels=request.labels,
        depends_on=request.depends_on,
        on_dependency_failure=request.on_dependency_failure,
    )
