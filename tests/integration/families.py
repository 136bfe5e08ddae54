"""An engine and a worker in the test's own thread: every step is taken when the test says so."""

from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy import text

from app.domain.errors import JobError
from app.domain.job_types import Result
from app.domain.jobs import Job, Priority
from app.domain.lifecycle import JobState
from app.engine.admit import end_overdue
from app.engine.fold import begin_families, fold, stir
from app.engine.leader import Leader
from app.persistence import admission
from app.persistence.sessions import Sessions
from app.services.clones import Clones
from app.services.control import Control
from app.services.families import Families
from app.services.jobs import Jobs
from app.services.pipelines import Pipelines
from app.services.runs import Runs
from config.settings import Settings
from tests.factories import RecordingBell, a_service, a_slot


class Installation:
    """Jobs, families, an engine that leads, and one slot of queue ``small``."""

    def __init__(self, sessions: Sessions, settings: Settings | None = None) -> None:
        self.sessions = sessions
        self.bell = RecordingBell()
        self.jobs: Jobs = a_service(sessions, bell=self.bell, settings=settings)
        self.control = Control(sessions, self.bell)
        self.families = Families(sessions, self.bell, self.jobs)
        self.pipelines = Pipelines(sessions, self.bell, self.jobs)
        self.clones = Clones(self.jobs, self.families, self.pipelines)
        self.leader = Leader(sessions, uuid4(), term_s=60)
        assert self.leader.leads()
        self.runs = Runs(sessions)
        self.slot = a_slot(sessions)

    def tick(self) -> None:
        """What the engine does when it is rung."""
        end_overdue(self.leader)
        fold(self.leader)
        stir(self.leader)
        begin_families(self.leader)
        fold(self.leader)
        with self.sessions.begin() as session:
            admission.admit(session, "small", Priority.NORMAL, bound=1000)

    def claim(self, most: int = 1000) -> list[Job]:
        return self.runs.claim("small", self.slot, most=most, oldest=False)

    def finish(self, *jobs: Job) -> None:
        for job in jobs:
            self.runs.complete(job, Result())

    def fail(self, *jobs: Job) -> None:
        for job in jobs:
            self.runs.fail(job, JobError("no", code="test.no"))

    def work_off(self, *, rounds: int = 200) -> list[int]:
        """Claim and complete until nothing is left; how many were at work in each round."""
        sizes = []
        for _ in range(rounds):
            self.tick()
            claimed = self.claim()
            if not claimed:
                return sizes
            sizes.append(len(claimed))
            self.finish(*claimed)
        raise AssertionError(f"not done after {rounds} rounds")

    def state(self, job_id: UUID) -> JobState:
        return self.jobs.get("default", job_id).state

    def states(self, *job_ids: UUID) -> list[JobState]:
        return [self.state(job_id) for job_id in job_ids]

    def children(self, parent_id: UUID) -> dict[str, Job]:
        """The children that have names, by these."""
        found = self.families.children("default", parent_id, after=-1, limit=1000)
        return {child.name: child for child in found if child.name}

    def sequence(self) -> list[int]:
        """The numbers of the tenant's events, in order."""
        with self.sessions.begin() as session:
            rows = session.execute(text("SELECT seq FROM numbered_events WHERE tenant = 'default' ORDER BY seq"))
            return [row.seq for row in rows]
