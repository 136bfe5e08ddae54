"""A worker in the test's own process: one slot with its heart, and job types that call the test's functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from time import monotonic, sleep
from typing import Any
from uuid import UUID

from celery import Celery
from celery.exceptions import Retry

from app.domain.errors import TransientError
from app.domain.job_types import JobConfig, JobType, Registry, Result
from app.domain.jobs import Job, SubmitJob
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectStore
from app.persistence.sessions import Sessions
from app.services.jobs import Jobs
from config.settings import Settings
from tasks.base import JobFailed, JobTask
from tasks.context import RunContext
from tasks.members import Ends, run_members
from tasks.process import WorkerProcess, enter
from tasks.slot import Heart, Slot
from tests.factories import RecordingBell

Action = Callable[[RunContext], Result | None]


class Do(JobConfig):
    """Which of the test's functions to call."""

    what: str


def jobs_of(sessions: Sessions, registry: Registry) -> Jobs:
    """The use cases of jobs, for types that check nothing of what a tenant has."""
    unasked: Any = None
    return Jobs(sessions, RecordingBell(), registry, queue_bound=200, submission=lambda _: unasked)


class Probe(JobTask):
    """Only what ``JobTask`` adds is called."""

    name = "probe"


def a_task(registry: Registry) -> JobTask:
    """A task as Celery binds it, for the jobs of ``registry``."""
    JobTask.registry = registry
    task: JobTask = Celery("test", set_as_current=False).register_task(Probe())
    return task


class Worker:
    """A worker of the queue ``data`` with one slot; ``start`` lets its heart beat."""

    def __init__(
        self,
        sessions: Sessions,
        settings: Settings,
        objects: ObjectStore,
        *,
        may_kill: bool = False,
        cheap: bool = False,
        types: Sequence[JobType] = (),
    ) -> None:
        self.queue = "small" if cheap else "data"
        self.actions: dict[str, Action] = {}
        self.bell = RecordingBell()
        self.sessions = sessions
        do = JobType(name="do", config=Do, run=self._run, queue=self.queue, cheap=cheap)
        registry = Registry({job_type.name: job_type for job_type in (do, *types)})
        self.service = jobs_of(sessions, registry)
        self.heart = Heart(settings, objects, queue_name=self.queue, process="test", slots=1, may_kill=may_kill)
        enter(WorkerProcess(heart=self.heart, bell=self.bell, registry=registry))
        self.task = a_task(registry)

    def _run(self, job: RunContext, config: Do) -> Result | None:
        return self.actions[config.what](job)

    def config(self, action: Action) -> dict[str, Any]:
        """The config of a job ``do`` that calls ``action``."""
        name = f"{action.__name__} {len(self.actions)}"
        self.actions[name] = action
        return {"what": name}

    def submit(self, action: Action, **options: Any) -> UUID:
        request = SubmitJob(tenant="default", type="do", config=self.config(action), created_by="test", **options)
        return self.service.submit(request).job.id

    def job(self, job_id: UUID) -> Job:
        return self.service.get("default", job_id)

    def state(self, job_id: UUID) -> JobState:
        return self.job(job_id).state

    @contextmanager
    def claimed(self) -> Iterator[tuple[Slot, RunContext]]:
        """The best job, held as a worker's task holds it."""
        with self.heart.slot() as slot:
            (job,) = slot.runs.claim(self.queue, slot.id, most=1, oldest=False)
            yield slot, slot.hold(job)


def run_claimed(task: JobTask, slot: Slot, claimed: list[Job]) -> None:
    """Run a claimed batch of cheap jobs."""
    with closing(Ends(slot)) as ends:
        run_members(task, slot, claimed, ends)


def run_small(worker: Worker, *, most: int = 50) -> int:
    """One claim's worth of cheap jobs, run to their ends; how many there were."""
    with worker.heart.slot() as slot:
        claimed = slot.runs.claim("small", slot.id, most=most, oldest=False)
        run_claimed(worker.task, slot, claimed)
    return len(claimed)


def attempt(worker: Worker) -> None:
    """The best job of a worker's queue, once, as Celery runs it; what comes of it stands in the job."""
    with worker.claimed() as (slot, context), suppress(Retry, JobFailed):
        try:
            worker.task.run_job(slot, context)
        except TransientError as error:
            worker.task.retry(exc=error)


def within(seconds: float, condition: Callable[[], object]) -> bool:
    """Whether ``condition`` came to hold in time."""
    until = monotonic() + seconds
    while monotonic() < until:
        if condition():
            return True
        sleep(0.01)
    return False
