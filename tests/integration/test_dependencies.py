"""Jobs that wait for other jobs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from app.domain.errors import NotFoundError
from app.domain.jobs import OnDependencyFailure
from app.domain.lifecycle import JobState
from app.persistence.keys import add_tenant
from app.persistence.sessions import Sessions
from tests.factories import a_request
from tests.integration.families import Installation


@pytest.fixture
def here(sessions: Sessions) -> Installation:
    return Installation(sessions)


@pytest.mark.feature("S2-38")
def test_a_job_starts_when_all_it_waits_for_have_completed(here: Installation) -> None:
    first, second = (here.jobs.submit(a_request()).job for _ in range(2))
    last = here.jobs.submit(a_request(depends_on=(first.id, second.id))).job

    one, other = here.claim()
    here.finish(one)
    here.tick()
    assert here.state(last.id) is JobState.BLOCKED
    here.finish(other)
    here.tick()

    assert [job.id for job in here.claim()] == [last.id]


def test_one_job_releases_many(here: Installation) -> None:
    first = here.jobs.submit(a_request()).job
    waiting = [here.jobs.submit(a_request(depends_on=(first.id,))).job.id for _ in range(10)]

    here.finish(*here.claim())
    here.tick()

    assert {job.id for job in here.claim()} == set(waiting)


@pytest.mark.feature("S2-87")
@pytest.mark.parametrize(
    ("policy", "state"),
    [
        (OnDependencyFailure.CANCEL, JobState.CANCELLED),
        (OnDependencyFailure.FAIL, JobState.FAILED),
        (OnDependencyFailure.RUN, JobState.QUEUED),
    ],
)
def test_the_policy_says_what_a_failed_dependency_does(
    here: Installation, policy: OnDependencyFailure, state: JobState
) -> None:
    first = here.jobs.submit(a_request()).job
    before = here.jobs.submit(a_request(depends_on=(first.id,), on_dependency_failure=policy)).job

    here.fail(*here.claim())
    here.tick()
    after = here.jobs.submit(a_request(depends_on=(first.id,), on_dependency_failure=policy)).job

    assert here.states(before.id, after.id) == [state, state]


def test_a_skipped_job_skips_those_that_wait_for_it(here: Installation) -> None:
    first = here.jobs.submit(a_request()).job
    second = here.jobs.submit(a_request(depends_on=(first.id,))).job
    third = here.jobs.submit(a_request(depends_on=(second.id,))).job

    here.fail(*here.claim())
    here.tick()

    assert here.states(second.id, third.id) == [JobState.CANCELLED, JobState.CANCELLED]
    assert here.jobs.get("default", third.id).cancel_reason == "skipped"


def test_what_is_over_already_is_not_waited_for(here: Installation) -> None:
    first = here.jobs.submit(a_request()).job
    here.finish(*here.claim())

    last = here.jobs.submit(a_request(depends_on=(first.id,))).job

    assert last.state is JobState.QUEUED


def test_a_need_that_is_opened_again_is_counted_once(here: Installation) -> None:
    first, second = (here.jobs.submit(a_request()).job for _ in range(2))
    last = here.jobs.submit(
        a_request(depends_on=(first.id, second.id), on_dependency_failure=OnDependencyFailure.RUN)
    ).job
    one, other = here.claim()
    here.fail(one)
    here.tick()

    here.control.retry("default", one.id, actor="test")
    here.tick()
    here.finish(*here.claim())
    here.tick()
    assert here.state(last.id) is JobState.BLOCKED
    here.finish(other)
    here.tick()

    assert here.state(last.id) is JobState.QUEUED


@pytest.mark.feature("S2-38")
def test_a_job_of_another_tenant_is_not_there_to_depend_on(here: Installation, sessions: Sessions) -> None:
    with sessions.begin() as session:
        add_tenant(session, "acme")
    foreign = here.jobs.submit(a_request(tenant="acme")).job

    for needed in (foreign.id, uuid4()):
        with pytest.raises(NotFoundError):
            here.jobs.submit(a_request(depends_on=(needed,)))


def test_an_end_that_races_the_submit_of_a_dependent_never_leaves_it_waiting(here: Installation) -> None:
    for _ in range(20):
        first = here.jobs.submit(a_request()).job
        (held,) = here.claim()
        with ThreadPoolExecutor(2) as pool:
            ending = pool.submit(here.finish, held)
            last = pool.submit(here.jobs.submit, a_request(depends_on=(first.id,))).result().job
            ending.result()
        here.tick()
        assert [job.id for job in here.claim()] == [last.id]
        here.finish(here.jobs.get("default", last.id))


def test_every_event_is_numbered_once_without_a_gap(here: Installation) -> None:
    first = here.jobs.submit(a_request()).job
    here.jobs.submit(a_request(depends_on=(first.id,)))

    here.work_off()
    here.tick()

    numbers = here.sequence()
    assert numbers == list(range(1, len(numbers) + 1))
