"""Repair of a ledger: correct what an import refused, and load it once more."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.dataplane.faults import Fault
from app.dataplane.plan import Plan, from_checkpoint
from app.dataplane.replay import read_one
from app.domain.errors import ConflictError, InvalidRequestError, NotFoundError, Problem
from app.domain.failed_records import FailedRecord
from app.domain.jobs import Job, SubmitJob
from app.persistence import failed_records, jobs
from app.persistence.sessions import Sessions
from app.services.jobs import Jobs
from app.services.once import Submitted

REPLAY: Final = "replay_failed_rows"


class Replays:
    """The use cases of repair."""

    def __init__(self, sessions: Sessions, jobs: Jobs) -> None:
        self._sessions = sessions
        self._jobs = jobs

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
            ConflictError: It is no import that has begun, or it has no unresolved row with a text.
        """
        with self._sessions.begin() as session:
            job, _ = _import(session, tenant, job_id)
            left, texts = failed_records.unresolved(session, tenant, job_id, codes)
        if not texts:
            of_these = f" of the codes {', '.join(codes)}" if codes else ""
            raise ConflictError(
                f"job {job_id} has no unresolved failed rows{of_these} with a text, {left} without",
                code="ledger.nothing_to_replay",
            )
        config = {"job": str(job_id), **({"codes": list(codes)} if codes else {})}
        request = SubmitJob(tenant, REPLAY, config, actor, priority=job.priority, labels=job.labels)
        return self._jobs.submit(request, idempotency_key=idempotency_key)

    def correct(
        self, tenant: str, job_id: UUID, line: int, *, raw: str | None = None, values: Mapping[str, str] | None = None
    ) -> FailedRecord:
        """Give a failed row another text, whole or by the names of the file's header; the next replay loads that.

        Raises:
            NotFoundError: The tenant has no such job, or the job's ledger no such line.
            ConflictError: It is no import that has begun, or a replay has loaded the row already.
            InvalidRequestError: The text is not one record of the file's width, or a name is not in its header.
        """
        with self._sessions.begin() as session:
            job, plan = _import(session, tenant, job_id)
            record = failed_records.of_line(session, tenant, job_id, line)
            if record is None:
                raise NotFoundError(f"the ledger of job {job_id} has no line {line}", code="ledger.no_such_line")
            delimiter = job.config.get("delimiter", ",")
            text = raw if raw is not None else _with_values(record, plan, delimiter, values or {})
            corrected = replace(record, corrected=text)
            fault = read_one(corrected, plan, delimiter)
            if isinstance(fault, Fault):
                at = "/raw" if raw is not None else "/values"
                raise InvalidRequestError(fault.message, code=fault.code, problems=(Problem(at, fault.message),))
            if not failed_records.correct(session, tenant, job_id, {line: text}):
                raise ConflictError(
                    f"line {line} of job {job_id} was loaded by a replay already",
                    code="ledger.resolved",
                )
        return corrected


def _import(session: Session, tenant: str, job_id: UUID) -> tuple[Job, Plan]:
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


def _with_values(record: FailedRecord, plan: Plan, delimiter: str, values: Mapping[str, str]) -> str:
    """A record's text with other values in some fields."""
    unknown = [name for name in values if name not in plan.names]
    problems = [Problem(f"/values/{name}", f"expected a name of the header, got {name!r}") for name in unknown]
    fields = read_one(record, plan, delimiter)
    if isinstance(fields, Fault):
        missing = [name for name in plan.names if name not in values]
        detail = f"the row cannot be read ({fields.message}), so every field of the header is needed"
        problems += [Problem(f"/values/{name}", detail) for name in missing]
        fields = [b""] * plan.width
    if problems:
        raise InvalidRequestError(
            "the values do not fit the row", code="ledger.values_invalid", problems=tuple(problems[:20])
        )
    row = [values.get(name, kept.decode()) for name, kept in zip(plan.names, fields, strict=True)]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="").writerow(row)
    return text.getvalue()
