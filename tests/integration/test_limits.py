"""Limits of concurrency and rate: what the engine admits under them, and what waits."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.domain.job_types import HOUSEKEEPING
from app.domain.jobs import Job, Origin
from app.domain.lifecycle import JobState
from app.domain.limits import LimitKind
from app.engine.admit import Memory, admit, forget_uses
from app.persistence import limits, new_jobs
from app.persistence.sessions import Sessions
from tests.factories import NO_POLICY, a_request, stored
from tests.integration.families import Installation


@pytest.fixture
def here(sessions: Sessions) -> Installation:
    return Installation(sessions)


def limit(
    here: Installation,
    kind: LimitKind,
    name: str = "",
    *,
    tenant: str = "default",
    most: int | None = None,
    rate: int | None = None,
    period_s: float | None = None,
) -> None:
    with here.sessions.begin() as session:
        limits.put(session, tenant, kind, name, max_concurrency=most, rate=rate, period_s=period_s, actor="test")


def submit(here: Installation, count: int = 1, **options: Any) -> list[Job]:
    return [here.jobs.submit(a_request(**options)).job for _ in range(count)]


def admitted(here: Installation, jobs: list[Job]) -> int:
    """How many of the jobs may be claimed or are at work, after the engine has looked."""
    admit(here.leader, bound=100)
    found = here.jobs.batch_get(jobs[0].tenant, [job.id for job in jobs])
    return sum(job is not None and job.state in {JobState.QUEUED, JobState.RUNNING} for job in found)


def test_a_key_has_no_more_jobs_at_work_than_its_limit(here: Installation) -> None:
    limit(here, LimitKind.KEY, "bank", most=2)
    jobs = submit(here, 5, concurrency_key="bank")

    at_first = admitted(here, jobs)
    here.finish(*here.claim(1))
    after_one_end = admitted(here, jobs)

    assert {job.state for job in jobs} == {JobState.OPEN}
    assert (at_first, after_one_end) == (2, 2)
    assert here.state(jobs[0].id) is JobState.COMPLETED


def test_a_limit_of_a_class_holds_for_each_of_its_keys_that_has_none_of_its_own(here: Installation) -> None:
    limit(here, LimitKind.KEY, "bank", most=1)
    limit(here, LimitKind.KEY, "bank:7", most=3)
    jobs = {key: submit(here, 4, concurrency_key=key) for key in ("bank:1", "bank:2", "bank:7")}

    at_work = {key: admitted(here, of_key) for key, of_key in jobs.items()}

    assert at_work == {"bank:1": 1, "bank:2": 1, "bank:7": 3}


def test_a_jobs_own_bound_holds_without_a_limit_of_its_key(here: Installation) -> None:
    strict = submit(here, 3, concurrency_key="bank", max_concurrency=1)
    loose = submit(here, 3, concurrency_key="bank", max_concurrency=3)

    at_work = admitted(here, strict), admitted(here, loose)

    assert at_work == (1, 2)


def test_a_limit_of_a_tenant_holds_over_its_keys_and_types(here: Installation) -> None:
    limit(here, LimitKind.TENANT, most=3)
    jobs = [
        *submit(here, 2),
        *submit(here, 2, concurrency_key="bank"),
        *submit(here, 2, type="sleep", config={"seconds": 1}),
    ]
    others = submit(here, 2, tenant="acme")

    at_work = admitted(here, jobs), admitted(here, others)

    assert {job.state for job in jobs} == {JobState.OPEN}
    assert at_work == (3, 2)


def test_the_installation_clears_up_whatever_the_limit_of_the_tenant_that_runs_it(here: Installation) -> None:
    limit(here, LimitKind.TENANT, most=1, rate=1, period_s=60)
    request = a_request(type=HOUSEKEEPING, config={"duty": "sweep"}, origin=Origin.SYSTEM)
    with here.sessions.begin() as session:
        system = [stored(session, request, queue="small") for _ in range(2)]
    jobs = submit(here, 2)

    at_work = admitted(here, system), admitted(here, jobs)

    assert at_work == (2, 1)


def test_a_limit_of_a_type_holds_over_all_tenants(here: Installation) -> None:
    limit(here, LimitKind.TYPE, "echo", tenant="", most=3)
    ours, theirs = submit(here, 3), submit(here, 3, tenant="acme")

    at_work = admitted(here, ours), admitted(here, theirs)

    assert at_work[0] + at_work[1] == 3
    assert min(at_work) >= 1


def test_a_limit_of_nothing_lets_none_begin(here: Installation) -> None:
    limit(here, LimitKind.TYPE, "echo", tenant="", most=0)

    assert admitted(here, submit(here, 2)) == 0


def test_a_rate_counts_admissions_of_its_period_whatever_became_of_them(here: Installation) -> None:
    limit(here, LimitKind.KEY, "bank", rate=2, period_s=3600)
    jobs = submit(here, 5, concurrency_key="bank:1")
    elsewhere = submit(here, 1, concurrency_key="bank:2")

    at_first = admitted(here, jobs)
    here.finish(*here.claim())
    after_their_end = admitted(here, jobs)

    assert (at_first, after_their_end) == (2, 0)
    assert here.state(elsewhere[0].id) is JobState.COMPLETED


def test_a_rate_lets_more_begin_when_its_period_is_over(here: Installation) -> None:
    limit(here, LimitKind.KEY, "bank", rate=2, period_s=3600)
    jobs = submit(here, 5, concurrency_key="bank")
    admitted(here, jobs)
    with here.sessions.begin() as session:
        session.execute(text("UPDATE limit_uses SET until = clock_timestamp()"))

    at_work = admitted(here, jobs)
    forgotten = forget_uses(here.leader)

    assert at_work == 4
    assert forgotten == 2


def test_ten_thousand_waiting_jobs_of_a_full_key_hold_back_nobody(here: Installation) -> None:
    limit(here, LimitKind.KEY, "full", most=1)
    _store(here, 10_000, "full")
    [other] = submit(here, 1, concurrency_key="other")
    [plain] = submit(here)
    admit(here.leader, bound=100)

    states = here.states(other.id, plain.id)

    with here.sessions.begin() as session:
        of_full = session.execute(
            text("SELECT count(*) FROM jobs WHERE state = 'queued' AND concurrency_key = 'full'")
        ).scalar_one()
    assert states == [JobState.QUEUED, JobState.QUEUED]
    assert of_full == 1


def _store(here: Installation, count: int, key: str) -> None:
    for first in range(0, count, 1000):
        new = [
            new_jobs.new_job(
                a_request(concurrency_key=key),
                job_id=UUID(int=first + place),
                queue="small",
                retry=NO_POLICY,
            )
            for place in range(1000)
        ]
        with here.sessions.begin() as session:
            new_jobs.insert(session, new_jobs.chunk(new).text())


def test_more_keys_than_are_looked_at_at_once_are_looked_at_in_turn(here: Installation, monkeypatch: Any) -> None:
    limit(here, LimitKind.TENANT, most=10_000)
    jobs = [*_of_keys(here, 1500)]
    memory = Memory()

    rounds = [admit(here.leader, bound=5000, memory=memory) for _ in range(2)]

    assert rounds == [1000, 500]
    assert len(jobs) == 1500


def _of_keys(here: Installation, count: int) -> list[UUID]:
    new = [
        new_jobs.new_job(
            a_request(concurrency_key=f"k{place:05}"), job_id=UUID(int=place), queue="small", retry=NO_POLICY
        )
        for place in range(count)
    ]
    with here.sessions.begin() as session:
        new_jobs.insert(session, new_jobs.chunk(new).text())
    return [job.id for job in new]


def test_a_limited_job_that_is_tried_again_counts_anew(here: Installation) -> None:
    limit(here, LimitKind.KEY, "bank", most=1)
    first, second = submit(here, 2, concurrency_key="bank")
    admit(here.leader, bound=100)
    [held] = here.claim()
    here.runs.hand_back(held, "test")

    at_work = admitted(here, [first, second])

    assert at_work == 1
