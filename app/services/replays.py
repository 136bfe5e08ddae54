"""Repair of a ledger: correct what an import refused, and load it once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.dataplane.faults import Fault
from app.dataplane.formats import Format
from app.dataplane.plan import Plan, from_checkpoint
from app.dataplane.single import read_one, with_values
from app.domain.errors import ConflictError, InvalidRequestError, NotFoundError, Problem
from app.domain.failed_records import FailedRecord
from app.domain.jobs import Job, SubmitJob
from app.domain.texts import is_storable
from app.persistence import failed_records, jobs
from app.persistence.sessions import Sessions
from app.services.jobs import Jobs
from app.services.once import Submitted
from app.services.row_texts import RowTexts

REPLAY: Final = "replay_failed_rows"


class Replays:
    """The use cases of repair."""

    def __init__(self, sessions: Sessions, jobs: Jobs, texts: RowTexts) -> None:
        self._sessions = sessions
        self._jobs = jobs
        self._texts = texts

    def replay(
        self,
        tenant: str,
        job_id: UUID,
        *,
        codes: Sequence[str] | None,
        actor: str,
        idempotency_key: str | None = None,
    ) -> Submitted:
        """Submit a job that loads what is unresolved in an import's ledger, of some codes or all.

        Raises:
            NotFoundError: The tenant has no such job.
            ConflictError: It is no import that has begun, or it has no unresolved row.
        """
        with self._sessions.begin() as session:
            job, _ = begun_import(session, tenant, job_id)
            left, _ = failed_records.unresolved(session, tenant, job_id, codes)
        if not left:
            of_these = f" of the codes {', '.join(codes)}" if codes else ""
            raise ConflictError(
                f"job {job_id} has no unresolved failed rows{of_these}",
                code="ledger.nothing_to_replay",
                hint="See which codes are unresolved: GET /v1/jobs/{id}/failed-records/groups." if codes else None,
            )
        config = {"job": str(job_id), **({"codes": list(codes)} if codes else {})}
        request = SubmitJob(tenant, REPLAY, config, actor, priority=job.priority, labels=job.labels)
        return self._jobs.submit(request, idempotency_key=idempotency_key)

    def correct(
        self, tenant: str, job_id: UUID, line: int, *, raw: str | None = None, values: Mapping[str, Any] | None = None
    ) -> FailedRecord:
        """Give a failed row another text, whole or by the names of the file's header; the next replay loads that.

        Raises:
            NotFoundError: The tenant has no such job, or the job's ledger no such line.
            ConflictError: It is no import that has begun, or a replay has loaded the row already.
            InvalidRequestError: The text is not one record of the file's width, or a name is not in its header.
            UnavailableError: The row has to be read from the import's file, and S3 is away.
        """
        at = "/raw" if raw is not None else "/values"
        if not is_storable([raw, dict(values or {})]):
            detail = "U+0000 and lone surrogates are not allowed"
            raise InvalidRequestError(detail, code="ledger.values_invalid", problems=(Problem(at, detail),))
        with self._sessions.begin() as session:
            job, plan = begun_import(session, tenant, job_id)
            record = failed_records.of_line(session, tenant, job_id, line)
            if record is None:
                raise NotFoundError(f"the ledger of job {job_id} has no line {line}", code="ledger.no_such_line")
        text = raw if raw is not None else self._with_values(job, record, plan, values or {})
        with self._sessions.begin() as session:
            corrected = replace(record, corrected=text)
            fault = read_one(corrected, plan)
            if isinstance(fault, Fault):
                raise InvalidRequestError(fault.message, code=fault.code, problems=(Problem(at, fault.message),))
            if not failed_records.correct(session, tenant, job_id, {line: text}):
                raise ConflictError(
                    f"line {line} of job {job_id} was loaded by a replay already",
                    code="ledger.resolved",
                )
        return corrected

    def _with_values(self, job: Job, record: FailedRecord, plan: Plan, values: Mapping[str, Any]) -> str:
        """A record's text with other values in some fields."""
        with self._texts.of(job, plan) as texts:
            known = texts.needed(record)
        problems = value_problems(known, plan, values, at="/values")
        if problems:
            raise InvalidRequestError(
                "the values do not fit the row", code="ledger.values_invalid", problems=tuple(problems[:20])
            )
        return with_values(known, plan, values)


def begun_import(session: Session, tenant: str, job_id: UUID) -> tuple[Job, Plan]:
    """A job and what it does with its file.

    Raises:
        NotFoundError: The tenant has no such job.
        ConflictError: It is no import that has begun.
    """
    job = jobs.get(session, tenant, job_id)
    if "import" not in (job.checkpoint or {}):
        raise ConflictError(
            f"job {job_id} of type {job.type} has no rows that can be replayed: it is no import that has begun",
            code="ledger.not_replayable",
        )
    return job, from_checkpoint(job.checkpoint or {})


def value_problems(record: FailedRecord, plan: Plan, values: Mapping[str, Any], *, at: str) -> list[Problem]:
    """Why a record cannot be given these values."""
    problems = [
        Problem(f"{at}/{name}", f"expected a name of the file's fields, got {name!r}")
        for name in values
        if name not in plan.names
    ]
    if plan.file_format is Format.CSV:
        problems += [
            Problem(f"{at}/{name}", f"expected text, got {value!r:.100}")
            for name, value in values.items()
            if not isinstance(value, str)
        ]
    fields = read_one(record, plan)
    if isinstance(fields, Fault):
        detail = f"the row cannot be read ({fields.message}), so every field is needed"
        problems += [Problem(f"{at}/{name}", detail) for name in plan.names if name not in values]
    return problems
