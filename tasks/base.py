"""JobTask: what became of an attempt, told to Postgres first and to Celery after."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

from billiard.common import terminate_handler_fired
from celery import Task
from celery.exceptions import Retry, WorkerShutdown, WorkerTerminate

from app.domain.errors import FenceLost, HaulierError, JobCancelled, JobError, JobPaused, TransientError
from app.domain.job_types import JobType, Registry, Result
from app.domain.jobs import Job, Outcome
from app.domain.texts import check_json, said_by
from app.services.runs import is_connection_lost
from tasks.context import HandBack, RunContext
from tasks.process import process
from tasks.slot import Slot, end_stopped

log = logging.getLogger(__name__)

Complete = Callable[[Job, Result], None]


class JobFailed(Exception):  # noqa: N818 - what Celery and Flower are told, after Postgres
    """A job gave up. The details stand on the job."""


class RetriedAnywayError(TransientError):
    """A failure that is not transient, of a job whose policy retries every one; its cause is what failed."""


def _checked(returned: Result | None) -> Result:
    """What a job type returned, as a result that can be kept and read again.

    Raises:
        JobError: ``job.result_invalid``: it is none.
    """
    result = Result() if returned is None else returned
    _expect(result, Result, "a job type returns a Result or nothing")
    _expect(result.data, dict, "the data of a Result is a dict")
    _expect(result.message, str | None, "the message of a Result is a text")
    _expect(result.outcome, Outcome, "the outcome of a Result is one of Outcome")
    check_json(result.data, "result", code="job.result_invalid")
    if result.message is not None:
        check_json(result.message, "result's message", code="job.result_invalid")
    return result


def _expect(value: object, kind: Any, expected: str) -> None:
    if not isinstance(value, kind):
        got = repr(value)[:100] if isinstance(value, str | int | float) else type(value).__name__
        raise JobError(f"{expected}, got {got}", code="job.result_invalid")


class JobTask(Task):  # type: ignore[misc]  # Celery has no types
    """A task that runs jobs.

    Celery's autoretry says *that* a transient failure is tried again; ``retry`` says *when*, by the job's own policy,
    and sends no message: the engine admits the job when it is due.
    """

    autoretry_for = (TransientError,)
    retry_backoff = True
    max_retries = None
    throws: ClassVar[tuple[type[BaseException], ...]] = (JobFailed,)
    registry: Registry

    def run_job(self, slot: Slot, context: RunContext, *, complete: Complete | None = None) -> None:
        """One attempt at a held job, to its end.

        Args:
            complete: Takes the result instead of writing it at once; it must let the job go when it has.
        Raises:
            TransientError: The attempt failed and the policy decides; autoretry calls ``retry``.
            JobFailed: The job gave up; Postgres knows.
        """
        try:
            result = self._run_held(slot, context)
            if result is None:
                slot.let_go(context.job)
            elif complete is None:
                self._completed(slot, context.job, result)
            else:
                complete(context.job, result)
        except FenceLost:
            slot.let_go(context.job)
            log.info("job.fence_lost", extra={"job_id": str(context.id)})
        except BaseException:
            # What ``retry`` needs, which is called when this was a transient error.
            self.request.update(haulier=(slot, context.job))
            slot.let_go(context.job)
            raise

    def _run_held(self, slot: Slot, context: RunContext) -> Result | None:
        try:
            return self._attempt(context)
        except (JobCancelled, JobPaused, HandBack, FenceLost) as stop:
            self._stopped(slot, context, stop)
        except (WorkerShutdown, WorkerTerminate):
            raise
        except BaseException as error:
            # SystemExit and the like end the attempt too: out of here they would end the worker, or have a solo or a
            # threaded one hear no bell again. Only a child that was told to end by a signal is to end by its own.
            if terminate_handler_fired():
                raise
            why = context.stop_behind(error) or error
            if isinstance(why, JobCancelled | JobPaused | HandBack | FenceLost):
                self._stopped(slot, context, why)
            elif isinstance(why, TransientError):
                raise why  # noqa: B904 - it is what was caught, or what that was raised on
            else:
                self._failed(slot, context, why)
        return None

    @staticmethod
    def _stopped(slot: Slot, context: RunContext, stop: BaseException) -> None:
        context.stop(stop)
        end_stopped(slot.runs, context)

    def _attempt(self, context: RunContext) -> Result:
        job_type = self.registry.get(context.job.type)
        context.registry = self.registry
        try:
            context.check()
            context.begin_metering()
            try:
                with context.memory_limited():
                    returned = job_type.run(context, self._config(context, job_type))
            finally:
                context.flush()
        except MemoryError:
            context.keep_spent()
            # Celery ends the whole worker when a MemoryError leaves a task.
            raise context.out_of_memory() from None
        except Exception:
            context.keep_spent()
            raise
        result = _checked(returned)
        if context.refused and result.outcome is Outcome.SUCCESS:
            result = replace(result, outcome=Outcome.PARTIAL)
        given, spent = context.given, context.spent
        if result.extension == given and result.spent == spent:
            return result
        return replace(result, extension=given, spent=spent)

    def _config(self, context: RunContext, job_type: JobType) -> Any:
        """The job's config as its type's model; that of a stage, filled in since it was sent, is checked in full.

        What it leaves to the installation is filled in then, as it is in a request, and kept for the job to show.
        """
        job = context.job
        config = self.registry.parse(job_type, job.config)
        if job.parent_id is None or job.name is None:
            return config
        submission = context.checks.submission(job.tenant)
        if job_type.check is not None:
            job_type.check(submission, config)
        settled = job.config if job_type.settle is None else job_type.settle(submission, job.config)
        if settled == job.config:
            return config
        context.settle(settled)
        return self.registry.parse(job_type, settled)

    def _completed(self, slot: Slot, job: Job, result: Result) -> None:
        slot.runs.complete(job, result)
        process().bell.tell_ended([job.id])
        slot.let_go(job)
        log.info("job.completed", extra={"job_id": str(job.id), "tenant": job.tenant, "attempt": job.attempts})

    def _failed(self, slot: Slot, context: RunContext, error: BaseException) -> NoReturn:
        job, said = context.job, said_by(error)
        if is_connection_lost(error):
            log.warning("job.store_lost", extra={"job_id": str(job.id), "error": said})
            slot.runs.rescue(job, "the connection to Postgres was lost", max_rescues=slot.settings.max_rescues)
            raise JobFailed(f"job {job.id} was handed back: the connection to Postgres was lost") from None
        if not isinstance(error, HaulierError):
            log.exception("job.crashed", extra={"job_id": str(job.id), "tenant": job.tenant})
            context.keep_crash()
        if job.retry.takes(error):
            raise RetriedAnywayError(said) from error
        slot.runs.fail(job, error)
        process().bell.tell_ended([job.id])
        log.info("job.failed", extra={"job_id": str(job.id), "tenant": job.tenant, "error": said})
        raise JobFailed(f"job {job.id} failed: {said}") from None

    def retry(self, *_args: Any, exc: BaseException | None = None, **_options: Any) -> NoReturn:
        """Called by autoretry: put the attempt off by the job's policy, or fail the job when none is left.

        Celery's own ``retry`` is not called: its ``max_retries`` would stay on the task, and its message would be a
        second truth.
        """
        slot, job = self.request.haulier
        failure = exc or TransientError("the attempt failed")
        try:
            wait_s = slot.runs.retry(
                job,
                failure.__cause__ or failure if isinstance(failure, RetriedAnywayError) else failure,
                retry_after_s=getattr(failure, "retry_after_s", None),
            )
        except FenceLost as lost:
            raise JobFailed(str(lost)) from None
        if wait_s is None:
            process().bell.tell_ended([job.id])
            raise JobFailed(f"job {job.id} failed: {failure}") from None
        log.info("job.retrying", extra={"job_id": str(job.id), "tenant": job.tenant, "wait_s": wait_s})
        raise Retry(f"job {job.id}: {failure}", exc=None, when=wait_s)
