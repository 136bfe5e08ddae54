"""Cheap jobs that nobody else waits with stand admitted ahead of their turn; whoever comes passes them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import text

from app.domain.jobs import Job, Priority
from app.domain.lifecycle import JobState
from app.domain.limits import LimitKind
from app.engine.admit import admit
from app.persistence import admission
from app.persistence.sessions import Sessions
from app.services.bulk import Bulk, Variant
from app.services.families import Payload, SubmitBatch
from app.services.steering import Steering
from tests.factories import a_request, in_threads, registry
from tests.integration.families import Installation

MANY = 300
"""Of a class whose bound is 100, of which submits may take half."""


@pytest.fixture
def here(sessions: Sessions) -> Installation:
    return Installation(sessions)


def flood(here: Installation, count: int = MANY, *, tenant: str = "default") -> list[UUID]:
    bulk = Bulk(here.sessions, here.bell, here.jobs)
    return bulk.submit([Variant(a_request(tenant=tenant), {}) for _ in range(count)]).ids


def steering(here: Installation) -> Steering:
    return Steering(here.sessions, here.bell, registry(), queue_bound=100)


def limit(here: Installation, kind: LimitKind, name: str, most: int) -> None:
    steering(here).put_limit("default", kind, name, actor="test", max_concurrency=most, rate=None, period_s=None)


def counts(here: Installation) -> dict[tuple[str, str], int]:
    """Jobs by tenant and state."""
    with here.sessions.begin() as session:
        rows = session.execute(text("SELECT tenant, state, count(*) AS jobs FROM jobs GROUP BY tenant, state"))
        return {(row.tenant, row.state): row.jobs for row in rows}


def let_their_turns_pass(here: Installation) -> None:
    with here.sessions.begin() as session:
        earlier = "turn_at = turn_at - interval '1 hour', admitted_at = admitted_at - interval '1 hour'"
        session.execute(text(f"UPDATE jobs SET {earlier} WHERE turn_at > now()"))


def one_of(here: Installation, tenant: str, *, priority: Priority = Priority.NORMAL) -> Job:
    return here.jobs.submit(a_request(tenant=tenant, priority=priority)).job


def test_all_jobs_of_a_request_stand_in_a_queue_that_nobody_waits_for(here: Installation) -> None:
    ids = flood(here)

    claimed = [job.id for job in here.claim(MANY)]

    assert counts(here) == {("default", "running"): MANY}
    assert claimed == ids
    assert here.bell.rings.count("small") == MANY / 50


def test_a_request_of_several_statements_keeps_its_order(here: Installation) -> None:
    ids = flood(here, 2500)

    assert [job.id for job in here.claim(2500)] == ids


def test_a_job_that_comes_later_passes_those_ahead_of_their_turn(here: Installation) -> None:
    flood(here)
    here.finish(*here.claim(50))

    urgent, other = one_of(here, "acme", priority=Priority.HIGH), one_of(here, "acme")

    assert {urgent.state, other.state} == {JobState.QUEUED}
    assert [job.id for job in here.claim(2)] == [urgent.id, other.id]
    assert here.claim(1)[0].tenant == "default"


def test_jobs_that_fell_behind_their_turns_go_back_as_soon_as_another_waits(here: Installation) -> None:
    flood(here)
    let_their_turns_pass(here)

    other = one_of(here, "acme")
    admit(here.leader, bound=100)

    assert other.state is JobState.OPEN
    assert counts(here) == {("default", "queued"): 99, ("acme", "queued"): 1, ("default", "open"): MANY - 99}


def test_jobs_that_were_admitted_in_their_turn_stay_where_they_are(here: Installation) -> None:
    for _ in range(130):
        one_of(here, "acme")
    admit(here.leader, bound=100)
    with here.sessions.begin() as session:
        # The clock is read twice.
        session.execute(
            text("UPDATE jobs SET turn_at = admitted_at + interval '1 microsecond' WHERE turn_at IS NOT NULL")
        )

    again = admit(here.leader, bound=100)

    assert again == 0
    assert counts(here) == {("acme", "queued"): 100, ("acme", "open"): 30}


def test_jobs_that_fell_behind_stay_while_nobody_else_waits(here: Installation) -> None:
    flood(here)
    let_their_turns_pass(here)

    admit(here.leader, bound=100)

    assert counts(here) == {("default", "queued"): MANY}


def test_jobs_for_which_there_is_a_limit_or_a_wait_stand_where_they_did(here: Installation) -> None:
    limit(here, LimitKind.TENANT, "acme", 5)

    flood(here, tenant="acme")

    assert counts(here) == {("acme", "open"): MANY}


def test_behind_jobs_that_wait_nobody_stands_ahead(here: Installation) -> None:
    flood(here, 50)
    waiting = one_of(here, "acme")

    flood(here)

    assert waiting.state is JobState.OPEN
    assert counts(here) == {("default", "queued"): 50, ("acme", "open"): 1, ("default", "open"): MANY}


def test_a_new_limit_holds_for_those_that_stand_ahead(here: Installation) -> None:
    flood(here, tenant="acme")

    limit(here, LimitKind.TENANT, "acme", 60)
    admit(here.leader, bound=100)

    assert counts(here) == {("acme", "queued"): 60, ("acme", "open"): MANY - 60}


@pytest.mark.parametrize(
    ("kind", "name"), [(LimitKind.TENANT, "acme"), (LimitKind.TYPE, "sleep"), (LimitKind.KEY, "bank")]
)
def test_a_limit_of_others_leaves_those_that_stand_ahead(here: Installation, kind: LimitKind, name: str) -> None:
    flood(here)

    limit(here, kind, name, 5)

    assert counts(here) == {("default", "queued"): MANY}


def test_a_limit_waits_for_jobs_that_are_being_stored(here: Installation) -> None:
    with ThreadPoolExecutor(2) as threads:
        for done in [
            threads.submit(flood, here, 2500, tenant="acme"),
            threads.submit(limit, here, LimitKind.TYPE, "echo", 60),
        ]:
            done.result()

    assert counts(here).get(("acme", "queued"), 0) <= 60


def test_a_paused_queue_takes_none(here: Installation) -> None:
    steering(here).pause("default", "small", paused=True, actor="test")

    flood(here)

    assert counts(here) == {("default", "open"): MANY}


def test_no_more_than_so_many_stand_in_a_class(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.jobs, "ahead", 400)
    flood(here)
    here.finish(*here.claim(50))

    flood(here)

    assert counts(here)["default", "queued"] == 400


def test_jobs_that_are_not_cheap_wait_for_the_engine(here: Installation) -> None:
    bulk = Bulk(here.sessions, here.bell, here.jobs)
    config = {"method": "GET", "url": "http://example.com/"}

    bulk.submit([Variant(a_request(type="http_request"), config) for _ in range(MANY)])

    assert counts(here) == {("default", "queued"): 50, ("default", "open"): MANY - 50}


def test_the_first_payloads_of_a_batch_stand_ahead_too(here: Installation) -> None:
    payloads = [Payload("echo", {"value": place}) for place in range(MANY)]

    batch = here.families.create_batch(SubmitBatch("default", payloads, "test", max_concurrency=200)).job

    states = [child.state for child in here.families.children("default", batch.id, after=-1, limit=MANY)]
    assert states == [JobState.QUEUED] * 200 + [JobState.BLOCKED] * 100
    assert here.bell.rings.count("small") == 200 / 50
    assert sum(here.work_off()) == MANY
    assert here.state(batch.id) is JobState.COMPLETED


def test_a_batch_of_more_than_may_stand_ahead_waits_for_the_engine(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.jobs, "ahead", MANY - 1)
    payloads = [Payload("echo", {"value": place}) for place in range(MANY)]

    batch = here.families.create_batch(SubmitBatch("default", payloads, "test", max_concurrency=200)).job

    states = [child.state for child in here.families.children("default", batch.id, after=-1, limit=MANY)]
    assert states == [JobState.OPEN] * 200 + [JobState.BLOCKED] * 100


def test_the_engine_passes_by_a_queue_whose_jobs_are_being_stored(here: Installation) -> None:
    waiting = one_of(here, "default")
    with here.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'open', admitted_at = NULL, turn_at = NULL"))
    with here.sessions.begin() as session:
        admission.lock_queue(session, "small")
        while_locked = in_threads(1, lambda: admit(here.leader, bound=100))

    afterwards = admit(here.leader, bound=100)

    assert (while_locked, afterwards) == ([0], 1)
    assert here.state(waiting.id) is JobState.QUEUED


def test_why_a_job_ahead_of_its_turn_waits_counts_those_before_it(here: Installation) -> None:
    last = flood(here)[-1]
    here.claim(1)

    [why] = steering(here).why_waiting("default", [last])

    assert why is not None
    assert why.position == MANY - 1
