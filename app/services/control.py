"""The use cases of steering one job: cancel, terminate, retry, pause, resume, reschedule."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.amendments import Amendment
from app.domain.errors import ConflictError
from app.domain.families import Kind, OnFailure
from app.domain.jobs import Job, Origin
from app.domain.lifecycle import TERMINAL, Event, JobState
from app.domain.ports import Bell
from app.persistence import families, jobs, pausing, renewal, stages, workers
from app.persistence.jobs import NOW, Sql
from app.persistence.sessions import Sessions
from app.services import delivering
from app.services.jobs import ring
from app.services.runs import RETRY_QUEUE

_RETRY_QUEUE_OF_CONNECTRA: Final = Sql(f"CASE origin WHEN '{Origin.CONNECTRA}' THEN '{RETRY_QUEUE}' ELSE queue END")
_DEADLINE_ANEW: Final = Sql("clock_timestamp() + (deadline_at - created_at)")


Fate = Literal["ended", "killed", "asked"]


@dataclass(frozen=True, slots=True)
class Terminated:
    """A job that was terminated.

    Args:
        fate: ``ended`` (no worker held it), ``killed`` (its process will be, at its next look), or ``asked`` (others
            share its process, which therefore lives: it stops at its next checkpoint).
    """

    job: Job
    fate: Fate


class Control:
    """The use cases of steering one job; on a family, its children follow."""

    def __init__(self, sessions: Sessions, bell: Bell) -> None:
        self._sessions = sessions
        self._bell = bell

    def cancel(self, tenant: str, job_id: UUID, *, actor: str, terminate: bool = False) -> Job:
        """End a job that waits; ask one that runs to stop, of which its worker hears within a second.

        Args:
            terminate: Have one that runs killed, where its process is its own. A family's children too.
        Raises:
            ConflictError: It has ended already.
        """
        with self._sessions.begin() as session:
            changes: dict[str, Any] = {"cancel_reason": "user", **({"terminate": True} if terminate else {})}
            data = {"reason": "user", **({"terminated": True} if terminate else {})}
            job = jobs.move(
                session, tenant, job_id, Event.CANCEL, actor=actor, unless_held=True, changes=changes, data=data
            ) or jobs.mark(
                session,
                tenant,
                job_id,
                Event.REQUEST_CANCEL,
                actor=actor,
                states=frozenset({JobState.RUNNING}),
                changes={"cancel_requested": True, **changes},
                data=data,
            )
            if job is None and jobs.get(session, tenant, job_id).is_terminal:
                raise self._ended(session, tenant, job_id)
            if job is not None and job.queue == families.PARENT_QUEUE:
                families.cancel_children(session, tenant, job_id, actor=actor, terminate=terminate)
        # It moved between the two looks (a retry, a rescue): what it is now can be cancelled the same way.
        return job or self.cancel(tenant, job_id, actor=actor, terminate=terminate)

    def terminate(self, tenant: str, job_id: UUID, *, actor: str) -> Terminated:
        """End a job now, a family with its children: what runs in a process of its own is killed.

        Raises:
            ConflictError: It has ended already.
        """
        job = self.cancel(tenant, job_id, actor=actor, terminate=True)
        if job.worker is None:
            return Terminated(job, "ended")
        with self._sessions.begin() as session:
            return Terminated(job, "killed" if workers.may_kill(session, job.worker) else "asked")

    def retry(
        self,
        tenant: str,
        job_id: UUID,
        *,
        actor: str,
        run_after: datetime | None = None,
        amendment: Amendment | None = None,
    ) -> Job:
        """Open a failed or cancelled job again: attempts start anew, the fence and the checkpoint go on.

        Of a family, the children that did not complete too; each waits for its needs and its place again.

        Args:
            amendment: Another config for it.
        Raises:
            ConflictError: It is neither failed nor cancelled, or children of it are still stopping; its config is
                not the one that the amendment changes.
        """
        changes: dict[str, Any] = {
            "attempts": 0,
            "rescues": 0,
            "cancel_requested": False,
            "cancel_reason": None,
            "terminate": False,
            "paused": False,
            "finished_at": None,
            "outcome": None,
            "run_after": run_after,
            "due_at": run_after or NOW,
            "deadline_at": _DEADLINE_ANEW,
            "queue": _RETRY_QUEUE_OF_CONNECTRA,
        }
        with self._sessions.begin() as session:
            if stages.is_unfilled(session, job_id):
                raise self._not_filled(session, tenant, job_id)
            changes, data = changes | _amended(session, tenant, job_id, amendment), _told(amendment)
            job = jobs.move(session, tenant, job_id, Event.REOPEN, actor=actor, changes=changes, data=data)
            if job is None:
                state = jobs.get(session, tenant, job_id).state
                raise ConflictError(
                    f"only a failed or cancelled job can be retried, job {job_id} is {state}",
                    code="job.not_retriable",
                    data={"state": state},
                )
            if job.queue == families.PARENT_QUEUE:
                self._renew_children(session, job, actor=actor)
        ring(self._bell, job)
        return job

    @staticmethod
    def _renew_children(session: Session, parent: Job, *, actor: str) -> None:
        stopping = renewal.stopping(session, parent.id)
        if stopping:
            raise ConflictError(
                f"{stopping} children of job {parent.id} were asked to stop and are still at work",
                code="family.stopping",
                hint="Retry it when they have ended.",
                data={"stopping": stopping, "retry_after_s": 1},
            )
        renewal.renew(session, parent.tenant, parent.id, actor=actor)
        delivering.again(session, parent)
        if parent.type == Kind.PIPELINE:
            said = parent.config
            reruns = said["stage_retries"] if said["failure_strategy"] == OnFailure.RETRY else 0
            renewal.renew_stages(session, parent.id, reruns=reruns)

    @staticmethod
    def _not_filled(session: Session, tenant: str, job_id: UUID) -> ConflictError:
        stage = jobs.get(session, tenant, job_id)
        return ConflictError(
            f"stage {stage.name!r} never got the results that its config refers to",
            code="stage.not_filled",
            hint="Retry its pipeline.",
            data={"state": stage.state},
        )

    def pause(self, tenant: str, job_id: UUID, *, actor: str) -> Job:
        """Keep a job from starting; one that runs stops at its next checkpoint and waits.

        Raises:
            ConflictError: It has ended.
        """
        paused = {"paused": True}
        with self._sessions.begin() as session:
            job = jobs.move(
                session, tenant, job_id, Event.RETURN, actor=actor, changes=paused, data={"reason": "paused"}
            ) or jobs.mark(
                session, tenant, job_id, Event.PAUSE, actor=actor, states=frozenset(JobState) - TERMINAL, changes=paused
            )
            if job is None:
                raise self._ended(session, tenant, job_id)
            if job.queue == families.PARENT_QUEUE:
                pausing.pause_all(session, tenant, "parent", job_id, paused=True, running=False, actor=actor)
        return job

    def resume(self, tenant: str, job_id: UUID, *, actor: str, amendment: Amendment | None = None) -> Job:
        """Let a paused job go on from its checkpoint.

        Args:
            amendment: Another config for it; then it must be paused, and no worker may hold it.
        Raises:
            ConflictError: It has ended; its config is not the one that the amendment changes.
        """
        with self._sessions.begin() as session:
            if amendment is not None:
                self._check_paused(session, tenant, job_id)
            job = jobs.mark(
                session,
                tenant,
                job_id,
                Event.RESUME,
                actor=actor,
                states=frozenset(JobState) - TERMINAL,
                changes={"paused": False, **_amended(session, tenant, job_id, amendment)},
                data=_told(amendment),
            )
            if job is None:
                raise self._ended(session, tenant, job_id)
            if job.queue == families.PARENT_QUEUE:
                pausing.pause_all(session, tenant, "parent", job_id, paused=False, running=False, actor=actor)
                families.touch(session, job)
        self._bell.ring_engine()
        return job

    @staticmethod
    def _check_paused(session: Session, tenant: str, job_id: UUID) -> None:
        job = jobs.get(session, tenant, job_id, lock=True)
        if not job.is_terminal and (not job.paused or job.state is JobState.RUNNING):
            raise ConflictError(
                f"the config of job {job_id} can be changed when it is paused and at rest, it is {job.state}",
                code="job.not_paused",
                data={"state": job.state, "paused": job.paused},
            )

    @staticmethod
    def _ended(session: Session, tenant: str, job_id: UUID) -> ConflictError:
        state = jobs.get(session, tenant, job_id).state
        return ConflictError(f"job {job_id} is already {state}", code="job.ended", data={"state": state})

    def reschedule(self, tenant: str, job_id: UUID, run_after: datetime, *, actor: str) -> Job:
        """Set when a waiting job is due; a failed one is opened again for then.

        Raises:
            ConflictError: It runs, stands in the queue, or ended otherwise.
        """
        with self._sessions.begin() as session:
            job = jobs.mark(
                session,
                tenant,
                job_id,
                Event.RESCHEDULE,
                actor=actor,
                states=frozenset({JobState.OPEN, JobState.RETRY_WAIT}),
                changes={"run_after": run_after, "due_at": run_after},
                data={"run_after": run_after.isoformat()},
            )
            state = None if job else jobs.get(session, tenant, job_id).state
        if job is not None:
            self._bell.ring_engine()
            return job
        if state is JobState.FAILED:
            return self.retry(tenant, job_id, actor=actor, run_after=run_after)
        raise ConflictError(
            f"run_after can be set while a job waits or after it failed, job {job_id} is {state}",
            code="job.not_waiting",
            data={"state": state},
        )


def _amended(session: Session, tenant: str, job_id: UUID, amendment: Amendment | None) -> dict[str, Any]:
    """The change of a job's config.

    Raises:
        ConflictError: Somebody changed it meanwhile.
    """
    if amendment is None:
        return {}
    if jobs.get(session, tenant, job_id, lock=True).config != amendment.before:
        raise ConflictError(f"the config of job {job_id} was changed meanwhile", code="job.config_conflict")
    return {"config": amendment.after}


def _told(amendment: Amendment | None) -> dict[str, Any]:
    return {} if amendment is None else {"config": amendment.changes}
