"""Jobs in Postgres: submission, claims, races, admission, idempotency."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.domain.errors import ConflictError, FenceLost, InvalidRequestError, JobPaused, NotFoundError, TransientError
from app.domain.job_types import Result
from app.domain.jobs import Job, Origin, Outcome, Priority
from app.domain.lifecycle import Event, JobState
from app.domain.retry import RetryPolicy, fixed_interval
from app.persistence import admission, jobs, new_jobs
from app.persistence.job_lists import Filters
from app.persistence.partitions import first_id
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from tests.factories import NO_POLICY, RecordingBell, a_cloner, a_control, a_request, a_service, a_slot, in_threads


def a_running_job(sessions: Sessions, **changes: object) -> Job:
    a_service(sessions).submit(a_request(**changes))
    (job,) = Runs(sessions).claim("small", a_slot(sessions), most=1, oldest=False)
    return job


@pytest.mark.feature("S2-81")
def test_a_due_job_goes_straight_to_the_queue_and_rings(sessions: Sessions) -> None:
    bell = RecordingBell()

    job = a_service(sessions, bell=bell).submit(a_request()).job

    assert job.state is JobState.QUEUED
    assert bell.rings == ["small"]


@pytest.mark.feature("S2-82")
def test_a_job_for_later_waits_open(sessions: Sessions) -> None:
    job = a_service(sessions).submit(a_request(run_after=datetime.now(UTC) + timedelta(hours=1))).job

    with sessions.begin() as session:
        admitted = admission.admit(session, "small", Priority.NORMAL, bound=100)

    assert job.state is JobState.OPEN
    assert admitted == 0


@pytest.mark.feature("S4-06")
def test_a_full_queue_leaves_new_jobs_open_and_admission_fills_it_exactly(sessions: Sessions) -> None:
    service = a_service(sessions, queue_bound=10)
    for _ in range(25):
        service.submit(a_request())

    with sessions.begin() as session:
        admitted = admission.admit(session, "small", Priority.NORMAL, bound=10)

    queued = service.find("default", Filters(states=(JobState.QUEUED,)), limit=100)
    assert len(queued) == 10
    assert admitted == 5


def test_admission_takes_tenants_in_turn(sessions: Sessions) -> None:
    service = a_service(sessions, queue_bound=1)
    for tenant, count in (("default", 20), ("acme", 2)):
        for _ in range(count):
            service.submit(a_request(tenant=tenant))

    with sessions.begin() as session:
        admission.admit(session, "small", Priority.NORMAL, bound=4)

    assert len(service.find("acme", Filters(states=(JobState.QUEUED,)), limit=10)) == 2


@pytest.mark.feature("S4-14")
def test_of_ten_workers_one_starts_the_job(sessions: Sessions) -> None:
    a_service(sessions).submit(a_request())
    runs = Runs(sessions)
    slots = [a_slot(sessions) for _ in range(10)]

    claimed = in_threads(10, lambda: runs.claim("small", slots.pop(), most=1, oldest=False))

    assert sum(len(some) for some in claimed) == 1


def test_the_most_urgent_job_is_claimed_first_and_the_oldest_on_request(sessions: Sessions) -> None:
    service = a_service(sessions)
    low, high = (service.submit(a_request(priority=priority)).job.id for priority in (Priority.LOW, Priority.HIGH))
    runs, slot = Runs(sessions), a_slot(sessions)

    (first,) = runs.claim("small", slot, most=1, oldest=False)
    service.submit(a_request(priority=Priority.HIGH))
    (second,) = runs.claim("small", slot, most=1, oldest=True)

    assert (first.id, second.id) == (high, low)


def test_a_slot_whose_lease_lapsed_claims_nothing(sessions: Sessions) -> None:
    a_service(sessions).submit(a_request())

    claimed = Runs(sessions).claim("small", a_slot(sessions, lease_s=-1), most=1, oldest=False)

    assert claimed == []


def test_a_completed_job_keeps_its_result_and_its_trail(sessions: Sessions) -> None:
    job = a_running_job(sessions)

    Runs(sessions).complete(job, Result({"rows": 3}, message="done", outcome=Outcome.PARTIAL))

    ended = a_service(sessions).get("default", job.id)
    trail = a_service(sessions).events("default", job.id, after=0, limit=10)
    assert (ended.state, ended.outcome, ended.result) == (
        JobState.COMPLETED,
        Outcome.PARTIAL,
        {"rows": 3, "message": "done"},
    )
    assert ended.worker is None
    assert [event.type for event in trail] == [Event.SUBMIT, Event.CLAIM, Event.COMPLETE]
    assert [event.number for event in trail] == [1, 2, 3]


def test_saying_an_end_twice_changes_nothing(sessions: Sessions) -> None:
    job = a_running_job(sessions)
    runs = Runs(sessions)

    runs.complete(job, Result())
    runs.complete(job, Result())

    assert a_service(sessions).get("default", job.id).event_no == 3


def test_a_former_holder_can_neither_write_nor_end_the_job(sessions: Sessions) -> None:
    former = a_running_job(sessions)
    runs = Runs(sessions)
    runs.rescue(former, "lost", max_rescues=5)
    with sessions.begin() as session:
        admission.admit(session, "small", Priority.NORMAL, bound=100)
    (holder,) = runs.claim("small", a_slot(sessions), most=1, oldest=False)

    with pytest.raises(FenceLost):
        runs.complete(former, Result())
    with sessions.begin() as session, pytest.raises(FenceLost):
        jobs.advance(session, former, rows=1)

    assert holder.fence == former.fence + 1
    assert (holder.attempts, holder.rescues) == (1, 1)
    runs.complete(holder, Result())


def test_a_failed_attempt_waits_by_the_jobs_policy_and_then_gives_up(sessions: Sessions) -> None:
    policy = RetryPolicy(2, 0.0, 1.0, 0.0, jitter=False)
    job = a_running_job(sessions, retry=policy)
    runs, service = Runs(sessions), a_service(sessions)

    runs.retry(job, TransientError("S3 hiccup"))
    waiting = service.get("default", job.id)
    with sessions.begin() as session:
        admission.admit(session, "small", Priority.NORMAL, bound=100)
    (again,) = runs.claim("small", a_slot(sessions), most=1, oldest=False)
    runs.retry(again, TransientError("S3 hiccup again"))

    ended = service.get("default", job.id)
    failures = service.events("default", job.id, after=0, limit=10, errors=True)
    assert waiting.state is JobState.RETRY_WAIT
    assert waiting.run_after is not None
    assert (ended.state, ended.attempts) == (JobState.FAILED, 2)
    assert [event.data["error"]["message"] for event in failures] == ["S3 hiccup", "S3 hiccup again"]


@pytest.mark.feature("S4-68")
def test_a_retry_of_a_connectra_job_goes_to_the_retry_runner(sessions: Sessions) -> None:
    job = a_running_job(sessions, origin=Origin.CONNECTRA, retry=fixed_interval(1, 0))

    Runs(sessions).retry(job, TransientError("no"))

    assert a_service(sessions).get("default", job.id).queue == "retry"


def test_a_job_that_lost_too_many_workers_fails(sessions: Sessions) -> None:
    job = a_running_job(sessions)

    Runs(sessions).rescue(job, "lost", max_rescues=0)

    ended = a_service(sessions).get("default", job.id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error["code"] == "ERR_WORKER_LOST"


def test_progress_adds_up_and_tells_of_a_wish_to_cancel(sessions: Sessions) -> None:
    job = a_running_job(sessions)
    a_control(sessions).cancel("default", job.id, actor="test")

    with sessions.begin() as session:
        jobs.advance(session, job, rows=10, failed=1, counters={"loaded": 9}, bytes_done=50, bytes_total=100)
        signals = jobs.advance(session, job, rows=5, counters={"loaded": 5, "failed": 0}, bytes_done=40, stage="load")

    now = a_service(sessions).get("default", job.id)
    assert signals.cancel_requested
    assert (now.progress.rows_done, now.error_count, now.counters) == (15, 1, {"loaded": 14, "failed": 0})
    assert (now.progress.bytes_done, now.progress.stage) == (50, "load")


def test_cancelling_a_waiting_job_ends_it_and_a_second_time_conflicts(sessions: Sessions) -> None:
    service = a_service(sessions)
    job = service.submit(a_request()).job

    cancelled = a_control(sessions).cancel("default", job.id, actor="test")

    assert (cancelled.state, cancelled.cancel_reason) == (JobState.CANCELLED, "user")
    with pytest.raises(ConflictError, match="already cancelled"):
        a_control(sessions).cancel("default", job.id, actor="test")


def test_of_cancel_and_completion_exactly_one_wins(sessions: Sessions) -> None:
    service, runs = a_service(sessions), Runs(sessions)
    slot = a_slot(sessions)
    for _ in range(30):
        service.submit(a_request())
        (job,) = runs.claim("small", slot, most=1, oldest=False)
        works = [lambda job=job: runs.complete(job, Result()), lambda job=job: runs.cancel(job, "user")]

        def one(works: list = works) -> bool:
            try:
                works.pop()()
            except FenceLost:
                return False
            return True

        assert sum(in_threads(2, one)) == 1


def test_a_paused_job_is_not_admitted_until_it_is_resumed(sessions: Sessions) -> None:
    service = a_service(sessions)
    job = service.submit(a_request()).job

    paused = a_control(sessions).pause("default", job.id, actor="test")
    with sessions.begin() as session:
        admitted_while_paused = admission.admit(session, "small", Priority.NORMAL, bound=10)
    a_control(sessions).resume("default", job.id, actor="test")
    with sessions.begin() as session:
        admitted_after = admission.admit(session, "small", Priority.NORMAL, bound=10)

    assert (paused.state, paused.paused) == (JobState.OPEN, True)
    assert (admitted_while_paused, admitted_after) == (0, 1)


def test_pausing_a_running_job_tells_its_holder_and_an_ended_one_conflicts(sessions: Sessions) -> None:
    service, runs = a_service(sessions), Runs(sessions)
    job = a_running_job(sessions)

    a_control(sessions).pause("default", job.id, actor="test")
    with sessions.begin() as session:
        signals = jobs.advance(session, job, rows=1)
    runs.pause(job, JobPaused("paused on request"))

    waiting = service.get("default", job.id)
    assert signals.paused
    assert (waiting.state, waiting.paused, waiting.attempts) == (JobState.OPEN, True, 0)
    a_control(sessions).cancel("default", job.id, actor="test")
    with pytest.raises(ConflictError):
        a_control(sessions).pause("default", job.id, actor="test")


@pytest.mark.feature("S2-73")
def test_a_failed_job_opens_again_with_attempts_anew_and_its_fence_kept(sessions: Sessions) -> None:
    job = a_running_job(sessions)
    Runs(sessions).fail(job, TransientError("no"))

    opened = a_control(sessions).retry("default", job.id, actor="test")

    assert (opened.state, opened.attempts, opened.fence) == (JobState.OPEN, 0, 1)
    assert opened.finished_at is None
    with pytest.raises(ConflictError, match="only a failed or cancelled job"):
        a_control(sessions).retry("default", job.id, actor="test")


def test_run_after_of_a_failed_job_opens_it_for_then(sessions: Sessions) -> None:
    job = a_running_job(sessions)
    Runs(sessions).fail(job, TransientError("no"))
    past = datetime.now(UTC) - timedelta(minutes=1)

    opened = a_control(sessions).reschedule("default", job.id, past, actor="test")

    assert (opened.state, opened.run_after) == (JobState.OPEN, past)


def test_a_clone_has_another_id_and_the_same_config(sessions: Sessions) -> None:
    service = a_service(sessions)
    first = service.submit(a_request(config={"value": {"a": [1, None]}}, labels={"team": "x"})).job

    clone = a_cloner(sessions).clone("default", first.id, actor="test")

    assert clone.id != first.id
    assert (clone.clone_of, clone.config, clone.labels) == (first.id, first.config, first.labels)


@pytest.mark.feature("S2-92")
def test_an_idempotency_key_makes_one_job_of_twenty_requests(sessions: Sessions) -> None:
    service = a_service(sessions)

    def once() -> object:
        try:
            return service.submit(a_request(), idempotency_key="k").job.id
        except ConflictError as error:
            return error.code

    answers = in_threads(20, once)

    made = set(answers) - {"idempotency.in_flight"}
    assert len(made) == 1
    assert service.submit(a_request(), idempotency_key="k").replayed
    assert len(service.find("default", Filters(), limit=50)) == 1


def test_an_idempotency_key_is_for_one_request(sessions: Sessions) -> None:
    service = a_service(sessions)
    service.submit(a_request(), idempotency_key="k")

    with pytest.raises(InvalidRequestError, match="was used for another request"):
        service.submit(a_request(config={"value": 2}), idempotency_key="k")


def test_another_tenants_job_is_not_found(sessions: Sessions) -> None:
    service = a_service(sessions)
    job = service.submit(a_request()).job

    for act in (
        lambda: service.get("acme", job.id),
        lambda: a_control(sessions).cancel("acme", job.id, actor="x"),
        lambda: a_control(sessions).retry("acme", job.id, actor="x"),
        lambda: a_cloner(sessions).clone("acme", job.id, actor="x"),
        lambda: service.events("acme", job.id, after=0, limit=1),
    ):
        with pytest.raises(NotFoundError):
            act()


@pytest.mark.parametrize("value", ["a\x00b", "\ud800"])
def test_text_that_postgres_cannot_hold_is_refused_before_a_row_is_made(sessions: Sessions, value: str) -> None:
    service = a_service(sessions)

    with pytest.raises(InvalidRequestError):
        service.submit(a_request(config={"value": value}))

    assert service.find("default", Filters(), limit=1) == []


def test_text_that_only_spells_u0000_is_taken_as_it_is(sessions: Sessions) -> None:
    service = a_service(sessions)

    job = service.submit(a_request(config={"value": "\\u0000"})).job

    assert service.get("default", job.id).config == {"value": "\\u0000"}


def test_an_unknown_job_type_is_refused_with_those_known(sessions: Sessions) -> None:
    with pytest.raises(InvalidRequestError, match=r"known are .*echo"):
        a_service(sessions).submit(a_request(type="nope"))


@pytest.mark.feature("S2-41")
def test_a_waiting_job_past_its_deadline_is_cancelled_for_its_timeout(sessions: Sessions) -> None:
    service = a_service(sessions)
    job = service.submit(a_request(timeout_s=0.001)).job

    with sessions.begin() as session:
        session.execute(text("SELECT pg_sleep(0.01)"))
    with sessions.begin() as session:
        ended = admission.end_overdue(session)

    assert [one.id for one in ended] == [job.id]
    assert service.get("default", job.id).cancel_reason == "timeout"


@pytest.mark.parametrize("instant", [datetime(1, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)])
def test_a_list_may_begin_at_any_instant_and_end_at_any(sessions: Sessions, instant: datetime) -> None:
    service = a_service(sessions)
    job = service.submit(a_request()).job
    end = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)

    all_of_time = service.find("default", Filters(created_from=instant, created_until=end), limit=10)
    before = service.find("default", Filters(created_until=instant), limit=10)
    after = service.find("default", Filters(created_from=end), limit=10)

    assert ([found.id for found in all_of_time], before, after) == ([job.id], [], [])


@pytest.mark.parametrize("away", [timedelta(minutes=-59), timedelta(minutes=14)])
def test_a_list_by_time_finds_jobs_whose_ids_are_of_another_clock(sessions: Sessions, away: timedelta) -> None:
    job_id = first_id(datetime.now(UTC) + away)
    new = new_jobs.new_job(a_request(), job_id=job_id, queue="small", retry=NO_POLICY)
    with sessions.begin() as session:
        [job] = new_jobs.add_all(session, [new], room=0)
    instant = Filters(created_from=job.created_at, created_until=job.created_at + timedelta(microseconds=1))

    found = a_service(sessions).find("default", instant, limit=10)

    assert [one.id for one in found] == [job_id]


def test_filters_find_what_they_say(sessions: Sessions) -> None:
    service = a_service(sessions)
    first = service.submit(a_request(labels={"a": "1"})).job
    second = service.submit(a_request(type="fail", config={})).job

    def ids(filters: Filters) -> list[object]:
        return [job.id for job in service.find("default", filters, limit=10)]

    assert ids(Filters(types=("fail",))) == [second.id]
    assert ids(Filters(labels={"a": "1"})) == [first.id]
    assert ids(Filters(types=("fail", "echo"))) == [second.id, first.id]
    assert ids(Filters(created_from=second.created_at)) == [second.id]
    assert ids(Filters(created_until=second.created_at)) == [first.id]
    assert ids(Filters(any_of=((JobState.QUEUED, False),))) == [second.id, first.id]
    assert ids(Filters(any_of=((JobState.QUEUED, True),))) == []
    assert service.batch_get("default", [uuid4(), first.id])[0] is None
