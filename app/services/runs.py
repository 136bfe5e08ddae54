"""What a worker does with a job it holds, and what the engine does with one whose worker was lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.domain.error_codes import REMEDIES
from app.domain.errors import FenceLost, HaulierError, JobPaused, TransientError
from app.domain.job_types import OWN_PROCESS_QUEUE, Result
from app.domain.jobs import Job, Origin
from app.domain.lifecycle import TRANSITIONS, Event
from app.domain.retry import CRASHED
from app.domain.texts import said_by, storable_json
from app.persistence import ends, jobs, workers
from app.persistence.jobs import NEVER, Sql
from app.persistence.sessions import Sessions, SingleStatements

log = logging.getLogger(__name__)

_MOST_CAUSES: Final = 3
_USED_UP: Final = "Its attempts are used up: retry the job when the cause is gone."
T = TypeVar("T")

RETRY_QUEUE: Final = "retry"
WORKER_LOST: Final = "ERR_WORKER_LOST"
_STORE_PATIENCE_S: Final = 600.0
_ATTEMPT_BACK: Final = Sql("greatest(attempts - 1, 0)")
_ONE_MORE_RESCUE: Final = Sql("rescues + 1")


def is_connection_lost(error: BaseException) -> bool:
    """Whether Postgres went away under a statement, which says nothing about the job."""
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "pgcode", None)
    # 57P01..57P03: shut down, crashed, starting; 25P03: our own idle limit; no code: the socket broke.
    return error.connection_invalidated or code in {"57P01", "57P02", "57P03", "25P03"} or _socket_broke(error, code)


def _socket_broke(error: DBAPIError, code: str | None) -> bool:
    return code is None and type(error.orig).__name__ in {"OperationalError", "InterfaceError", "DatabaseError"}


def patiently(work: Callable[[], T], *, patience_s: float = _STORE_PATIENCE_S) -> T:
    """Do ``work`` again until Postgres answers; anything else it raises goes out.

    ``work`` must find out by itself whether an earlier try was committed.
    """
    until = monotonic() + patience_s
    wait_s = 0.1
    while True:
        try:
            return work()
        except DBAPIError as error:
            if not is_connection_lost(error) or monotonic() > until:
                raise
            log.warning("store.waiting", extra={"error": str(error.orig).strip()})
        sleep(wait_s)
        wait_s = min(2.0, wait_s * 2)


def describe(error: BaseException, job: Job, *, last: bool = False) -> dict[str, Any]:
    """An error as it is kept on the job and in its trail, but for its stage, which stands on the job.

    Args:
        last: No other attempt follows, so that waiting for one is no remedy.
    """
    if isinstance(error, HaulierError):
        said: dict[str, Any] = {"code": error.code, "message": error.detail, "hint": error.hint, "data": error.data}
        said["errors"] = [{"pointer": one.pointer, "detail": one.detail} for one in error.problems]
    else:
        said = {"code": CRASHED, "message": f"{type(error).__name__}: {_said(error)}".removesuffix(": ")}
    remedy = REMEDIES.get(said["code"])
    if last and isinstance(error, TransientError) and remedy is not None and remedy.startswith("Nothing"):
        remedy = _USED_UP
    said["hint"] = said.get("hint") or remedy
    said |= {"attempt": job.attempts, "cause": _cause(error)}
    return _kept({name: value for name, value in said.items() if value not in (None, {}, [], "")})


def _said(error: BaseException) -> str:
    """The error's own text; of one of a statement only what Postgres said first: the statement is for the log."""
    return (str(error.orig).partition("\n")[0] if isinstance(error, DBAPIError) else said_by(error)).strip()


def _cause(error: BaseException) -> str | None:
    """What the error was raised from, and that from, in their own words."""
    said: list[str] = []
    while (cause := error.__cause__) is not None and len(said) < _MOST_CAUSES:
        said.append(f"{type(cause).__name__}: {_said(cause)}"[:500])
        error = cause
    return "; from ".join(said) or None


def _kept(said: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = storable_json(said)
    return kept


class Runs:
    """Claims jobs and ends attempts. Every end is guarded by the fence and may be said twice."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._single = SingleStatements(sessions)

    def claim(self, queue: str, slot: UUID, *, most: int, oldest: bool) -> list[Job]:
        """The best jobs of ``queue``, now running for ``slot``."""
        if queue != OWN_PROCESS_QUEUE:
            with self._single.begin() as session:
                return jobs.claim(session, queue, slot, most=most, oldest=oldest)
        with self._sessions.begin() as session:
            workers.lock_process(session, slot)
            return jobs.claim(session, queue, slot, most=most, oldest=oldest, counted=True)

    def complete(self, job: Job, result: Result) -> None:
        """The job did its work."""
        changes: dict[str, Any] = {"result": result.kept, "outcome": result.outcome, "error": None}
        if result.extension:
            changes["extension"] = list(result.extension)
        if result.spent is not None:
            changes["spent"] = result.spent
        self._end(job, Event.COMPLETE, changes)

    def complete_all(self, ended: Sequence[tuple[Job, Result]]) -> list[Job]:
        """Jobs did their work; those that were no longer held."""
        return self._end_all([job for job, _ in ended], Event.COMPLETE, lambda session: ends.complete(session, ended))

    def hand_back_all(self, held: Sequence[Job], reason: str) -> list[Job]:
        """Jobs go back to wait, not counted as attempts; one that is asked to end ends. Those no longer held."""
        left = self._end_all(held, Event.HAND_BACK, lambda session: ends.hand_back(session, held, reason))
        return [job for job in left if not self._ended_as_asked(job)]

    def _ended_as_asked(self, job: Job) -> bool:
        with self._single.begin() as session:
            now = jobs.get(session, job.tenant, job.id)
        if now.fence != job.fence or not now.cancel_requested:
            return False
        self.cancel(job, now.cancel_reason or "user")
        return True

    def _end_all(self, held: Sequence[Job], event: Event, end: Callable[[Session], set[UUID]]) -> list[Job]:
        def once() -> list[Job]:
            with self._single.begin() as session:
                left = end(session)
                return [job for job in held if job.id in left and not self._is_done(session, job, event)]

        return patiently(once)

    def retry(self, job: Job, error: BaseException, *, retry_after_s: float | None = None) -> float | None:
        """Put a failed attempt off by the job's policy, or fail the job when that grants no other.

        One that was asked to end ends instead: of a family that is over nobody would try it again.

        Returns:
            Seconds until the next attempt, ``None`` when there is none.
        """
        wait_s = None
        if job.retry.takes(error):
            wait_s = job.retry.next_wait_s(job.attempts, retry_after_s=retry_after_s)
        if wait_s is None:
            self.fail(job, error)
            return None
        said = describe(error, job)
        due = Sql(f"clock_timestamp() + interval '{wait_s * 1000:.0f} milliseconds'")
        # A child is due when its family has a place for it again, which the engine finds out.
        changes: dict[str, Any] = {"run_after": due, "due_at": due if job.parent_id is None else NEVER, "error": said}
        if job.origin is Origin.CONNECTRA:
            changes["queue"] = RETRY_QUEUE
        try:
            self._end(job, Event.RETRY, changes, data={"wait_s": round(wait_s, 3)}, unless_asked=True)
        except FenceLost:
            if not self._ended_as_asked(job):
                raise
            return None
        return wait_s

    def fail(self, job: Job, error: BaseException) -> None:
        """The job gives up."""
        self._end(job, Event.FAIL, {"error": describe(error, job, last=True)})

    def cancel(self, job: Job, reason: str, *, terminated: bool = False) -> None:
        """The job stopped because it was asked to, or is to be killed."""
        why = _kept({"reason": reason})
        data = {**why, **({"terminated": True} if terminated else {})}
        self._end(job, Event.CANCEL, {"cancel_reason": why["reason"]}, data=data)

    def hand_back(self, job: Job, reason: str) -> None:
        """The job goes back to wait, not counted as an attempt: its worker shuts down or has too much."""
        if self.hand_back_all([job], reason):
            raise FenceLost(f"job {job.id} is no longer held under fence {job.fence}")

    def pause(self, job: Job, why: JobPaused) -> None:
        """The job goes back to wait until somebody resumes it."""
        said = _kept({"code": why.code, "message": why.reason})
        changes = {"attempts": _ATTEMPT_BACK, "paused": True, "error": said}
        self._end(job, Event.HAND_BACK, changes, data=_kept({"reason": why.reason, **why.data}))

    def rescue(self, job: Job, reason: str, *, max_rescues: int) -> None:
        """This worker cannot go on with the job through no fault of the job."""

        def once() -> None:
            with self._sessions.begin() as session:
                if not give_back(session, job, reason, actor="worker", max_rescues=max_rescues):
                    self._must_hold(session, job)

        patiently(once)

    def _end(
        self,
        job: Job,
        event: Event,
        changes: dict[str, Any],
        *,
        data: dict[str, Any] | None = None,
        unless_asked: bool = False,
    ) -> None:
        def once() -> None:
            with self._single.begin() as session:
                moved = jobs.move(
                    session,
                    job.tenant,
                    job.id,
                    event,
                    actor="worker",
                    fence=job.fence,
                    unless_asked=unless_asked,
                    changes=changes,
                    data=data,
                )
                if moved is None and not self._is_done(session, job, event):
                    raise FenceLost(f"job {job.id} is no longer held under fence {job.fence}")

        patiently(once)

    @staticmethod
    def _is_done(session: Session, job: Job, event: Event) -> bool:
        """Whether an earlier try, whose answer was lost, has moved the job already."""
        now = jobs.get(session, job.tenant, job.id)
        return now.fence == job.fence and now.state is TRANSITIONS[event].target

    @staticmethod
    def _must_hold(session: Session, job: Job) -> None:
        if jobs.get(session, job.tenant, job.id).fence != job.fence:
            raise FenceLost(f"job {job.id} is no longer held under fence {job.fence}")


def give_back(
    session: Session, job: Job, reason: str, *, actor: str, max_rescues: int, held_alone: bool = True
) -> bool:
    """End the hold on a job whose worker was lost; whether it was still held under ``job.fence``.

    A cancelled job or one past its deadline ends; any other waits again, until it has cost too many workers. From now
    on it is run by itself, so that what it does to a worker is seen to be its doing.

    Args:
        held_alone: Whether the worker held no other job; of several nobody knows which one began, and none is blamed.
    """
    data: dict[str, Any] = {"reason": reason, "worker": str(job.worker)}
    event = Event.RESCUE
    changes: dict[str, Any] = {"attempts": _ATTEMPT_BACK, "alone": True}
    if held_alone:
        changes["rescues"] = _ONE_MORE_RESCUE
    if job.cancel_requested:
        event, changes = Event.CANCEL, {"cancel_reason": job.cancel_reason or "user"}
    elif held_alone and job.rescues >= max_rescues:
        said = {
            "code": WORKER_LOST,
            "message": f"{job.rescues + 1} workers were lost while they ran this job, without any progress between",
            "hint": "Look at the workers' logs for what ended them (memory, a crash in native code), then retry.",
            "attempt": job.attempts,
        }
        event, changes = Event.FAIL, {"error": said, "rescues": _ONE_MORE_RESCUE}
    moved = jobs.move(session, job.tenant, job.id, event, actor=actor, fence=job.fence, changes=changes, data=data)
    return moved is not None
