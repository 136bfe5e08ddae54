"""Jobs between two looks: what happens when one moves while it is being asked to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.errors import ConflictError, FenceLost, InvalidRequestError, NotFoundError, TransientError
from app.domain.job_types import Result
from app.domain.jobs import Job, Origin, Priority
from app.domain.lifecycle import TERMINAL, Event, JobState
from app.domain.retry import RetryPolicy
from app.persistence import admission, job_lists, jobs
from app.persistence.job_lists import Filters
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from tests.factories import RecordingBell, a_cloner, a_control, a_request, a_service, a_slot

LATER = datetime(2999, 1, 1, tzinfo=UTC)


def a_running_job(sessions: Sessions, **changes: object) -> Job:
    queue = a_service(sessions).submit(a_request(**changes)).job.queue
    (job,) = Runs(sessions).claim(queue, a_slot(sessions, queue), most=1, oldest=False)
    return job


def test_a_job_that_goes_back_to_wait_while_it_is_cancelled_is_cancelled(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_running_job(sessions)
    mark = jobs.mark

    def after_a_hand_back(*given: Any, **named: Any) -> Job | None:
        monkeypatch.setattr(jobs, "mark", mark)
        Runs(sessions).hand_back(job, "worker shuts down")
        return mark(*given, **named)

    monkeypatch.setattr(jobs, "mark", after_a_hand_back)

    cancelled = a_control(sessions).cancel("default", job.id, actor="test")

    assert cancelled.state is JobState.CANCELLED


def test_a_job_that_ends_while_it_is_cancelled_stays_as_it_ended(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_running_job(sessions)
    mark = jobs.mark

    def after_its_end(*given: Any, **named: Any) -> Job | None:
        Runs(sessions).complete(job, Result())
        return mark(*given, **named)

    monkeypatch.setattr(jobs, "mark", after_its_end)

    with pytest.raises(ConflictError, match="already completed"):
        a_control(sessions).cancel("default", job.id, actor="test")


@pytest.mark.parametrize("act", ["pause", "resume"])
def test_an_ended_job_is_neither_paused_nor_resumed(sessions: Sessions, act: str) -> None:
    control = a_control(sessions)
    job = a_running_job(sessions)
    Runs(sessions).complete(job, Result())

    with pytest.raises(ConflictError) as refused:
        getattr(control, act)("default", job.id, actor="test")

    assert (refused.value.code, refused.value.data) == ("job.ended", {"state": JobState.COMPLETED})


def test_a_waiting_job_is_put_off_and_the_engine_hears_of_it(sessions: Sessions) -> None:
    bell = RecordingBell()
    job = a_service(sessions, bell=bell).submit(a_request(run_after=LATER)).job

    moved = a_control(sessions, bell=bell).reschedule("default", job.id, LATER + timedelta(days=1), actor="test")

    assert (moved.state, moved.run_after) == (JobState.OPEN, LATER + timedelta(days=1))
    assert bell.rings == ["engine"]


@pytest.mark.parametrize("end", [None, "complete"])
def test_a_job_that_runs_or_is_done_is_not_put_off(sessions: Sessions, end: str | None) -> None:
    job = a_running_job(sessions)
    if end:
        Runs(sessions).complete(job, Result())

    with pytest.raises(ConflictError) as refused:
        a_control(sessions).reschedule("default", job.id, LATER, actor="test")

    assert refused.value.code == "job.not_waiting"


def test_a_job_in_another_state_than_required_is_refused_with_both(sessions: Sessions) -> None:
    service = a_service(sessions)
    job = service.submit(a_request()).job

    with pytest.raises(ConflictError, match="is queued, this needs cancelled or completed or failed"):
        service.require("default", job.id, TERMINAL)

    assert service.require("default", job.id, frozenset({JobState.QUEUED})).id == job.id


def test_a_clone_has_as_long_as_the_first_had(sessions: Sessions) -> None:
    service = a_service(sessions)
    first = service.submit(a_request(timeout_s=90, attempt_timeout_s=5)).job

    clone = a_cloner(sessions).clone("default", first.id, actor="test")

    assert clone.deadline_at is not None
    assert (clone.deadline_at - clone.created_at).total_seconds() == pytest.approx(90, abs=1)
    assert clone.attempt_timeout_s == 5


@pytest.mark.parametrize("key", ["", "x" * 256, "a\0b"], ids=["empty", "long", "NUL"])
def test_an_idempotency_key_that_cannot_be_kept_is_refused(sessions: Sessions, key: str) -> None:
    service = a_service(sessions)

    with pytest.raises(InvalidRequestError, match="1 to 255 characters"):
        service.submit(a_request(), idempotency_key=key)

    assert service.find("default", Filters(), limit=1) == []


def test_a_second_rescue_of_a_job_that_went_back_says_that_the_fence_is_lost(sessions: Sessions) -> None:
    former, runs = a_running_job(sessions), Runs(sessions)
    runs.rescue(former, "lost", max_rescues=5)
    runs.rescue(former, "lost", max_rescues=5)
    with sessions.begin() as session:
        admission.admit(session, "small", Priority.NORMAL, bound=100)
    runs.claim("small", a_slot(sessions), most=1, oldest=False)

    with pytest.raises(FenceLost):
        runs.rescue(former, "lost", max_rescues=5)

    assert a_service(sessions).get("default", former.id).rescues == 1


def test_only_a_job_that_comes_further_than_before_has_its_lost_workers_forgotten(sessions: Sessions) -> None:
    job = a_running_job(sessions)
    kept = []

    for rows in (10, 5, 10, 11):
        with sessions.begin() as session:
            session.execute(text("UPDATE jobs SET rescues = 3 WHERE id = :id"), {"id": job.id})
            jobs.advance(session, job, rows_done=rows)
        kept.append(a_service(sessions).get("default", job.id).rescues)

    assert kept == [0, 3, 3, 0]


def test_a_rescue_ends_a_job_that_was_to_be_cancelled(sessions: Sessions) -> None:
    service, held = a_service(sessions), a_running_job(sessions)
    a_control(sessions).cancel("default", held.id, actor="test")
    seen = service.get("default", held.id)

    Runs(sessions).rescue(seen, "lost", max_rescues=5)

    ended = service.get("default", held.id)
    assert (ended.state, ended.cancel_reason) == (JobState.CANCELLED, "user")


def test_ends_written_together_are_said_to_be_lost_only_where_they_are(sessions: Sessions) -> None:
    service, runs = a_service(sessions), Runs(sessions)
    for _ in range(3):
        service.submit(a_request())
    first, second, third = runs.claim("small", a_slot(sessions), most=3, oldest=False)
    runs.complete(first, Result())
    runs.fail(second, TransientError("no"))

    lost = runs.complete_all([(job, Result()) for job in (first, second, third)])

    assert lost == [second]
    assert service.get("default", third.id).state is JobState.COMPLETED


def test_a_retry_without_an_interval_is_due_at_once(sessions: Sessions) -> None:
    job = a_running_job(sessions, retry=RetryPolicy(3, 0.0, 1.0, 0.0))

    wait_s = Runs(sessions).retry(job, TransientError("no"))

    assert wait_s == 0


def test_a_deadline_starts_anew_when_a_job_is_opened_again(sessions: Sessions) -> None:
    job = a_running_job(sessions, timeout_s=3_600)
    Runs(sessions).fail(job, TransientError("no"))

    opened = a_control(sessions).retry("default", job.id, actor="test")

    assert opened.deadline_at is not None
    assert job.deadline_at is not None
    assert opened.deadline_at > job.deadline_at


@pytest.mark.parametrize(
    "act",
    [
        lambda sessions, job: a_control(sessions).pause("acme", job.id, actor="x"),
        lambda sessions, job: a_control(sessions).resume("acme", job.id, actor="x"),
        lambda sessions, job: a_control(sessions).reschedule("acme", job.id, LATER, actor="x"),
        lambda sessions, job: a_service(sessions).require("acme", job.id, TERMINAL),
    ],
    ids=["pause", "resume", "reschedule", "require"],
)
def test_another_tenants_job_is_not_found_whatever_is_asked_of_it(
    sessions: Sessions, act: Callable[[Any, Job], object]
) -> None:
    service = a_service(sessions)
    job = service.submit(a_request()).job

    with pytest.raises(NotFoundError):
        act(sessions, job)

    assert service.events("default", job.id, after=0, limit=10)[-1].type == Event.SUBMIT


def test_a_list_is_filtered_by_origin_start_and_state_at_once(sessions: Sessions) -> None:
    service = a_service(sessions)
    job = a_running_job(sessions, origin=Origin.CONNECTRA)
    service.submit(a_request())
    begun = service.get("default", job.id).started_at
    assert begun is not None

    def ids(filters: Filters) -> list[object]:
        return [found.id for found in service.find("default", filters, limit=10)]

    assert ids(Filters(origin=Origin.CONNECTRA)) == [job.id]
    assert ids(Filters(started_from=begun)) == [job.id]
    assert ids(Filters(started_until=begun)) == []
    assert ids(Filters(any_of=((JobState.RUNNING, False),))) == [job.id]
    assert ids(Filters(any_of=((JobState.RUNNING, None),))) == [job.id]
    assert ids(Filters(any_of=((JobState.RUNNING, True),))) == []


def test_the_jobs_that_ended_are_told_from_those_that_did_not(sessions: Sessions) -> None:
    over, waiting = a_running_job(sessions), a_service(sessions).submit(a_request()).job
    Runs(sessions).complete(over, Result())

    with sessions.begin() as session:
        ended = job_lists.ended(session, [over.id, waiting.id])

    assert [job.id for job in ended] == [over.id]
