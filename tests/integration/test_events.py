"""The feed of events: pages in order without a gap, and streams that go on where they were left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from app.domain.job_types import Result
from app.domain.jobs import Job, JobEvent
from app.domain.lifecycle import TERMINAL, TRANSITIONS, Event, JobState
from app.persistence import jobs
from app.persistence.keys import add_tenant
from app.persistence.sessions import Sessions
from app.services.feed import Feed, Wanted
from app.services.ids import new_id
from app.services.places import Places
from tests.factories import a_request
from tests.integration.families import Installation


@pytest.fixture
def here(sessions: Sessions) -> Installation:
    return Installation(sessions)


def read(stream: Iterator[Any], count: int) -> list[dict[str, str]]:
    """The next ``count`` messages of an event stream."""
    messages: list[dict[str, str]] = []
    rest = ""
    while len(messages) < count:
        rest += next(stream).decode()
        *whole, rest = rest.split("\n\n")
        messages += [dict(line.split(": ", 1) for line in message.splitlines()) for message in whole]
    return messages


def test_events_are_paged_in_order_without_a_gap(here: Installation, admin: FlaskClient) -> None:
    for _ in range(5):
        here.jobs.submit(a_request())
    here.work_off()
    here.tick()

    seen: list[int] = []
    url: str | None = "/v1/events?limit=4"
    while url:
        answer = admin.get(url)
        seen += [event["seq"] for event in answer.get_json()["items"]]
        more = answer.get_json()["next_after"]
        url = f"/v1/events?limit=4&after={more}" if more else None

    assert seen == list(range(1, 16))


def test_types_can_be_chosen(here: Installation, admin: FlaskClient) -> None:
    here.jobs.submit(a_request())
    here.work_off()
    here.tick()

    items = admin.get("/v1/events?type=job.completed").get_json()["items"]

    assert [event["type"] for event in items] == ["job.completed"]


@pytest.mark.feature("S2-55")
def test_the_events_of_one_job_can_be_chosen(here: Installation, admin: FlaskClient) -> None:
    _, wanted = (here.jobs.submit(a_request()).job for _ in range(2))
    here.work_off()
    here.tick()

    items = admin.get(f"/v1/events?job_id={wanted.id}").get_json()["items"]

    assert [event["type"] for event in items] == ["job.submitted", "job.started", "job.completed"]
    assert {event["job_id"] for event in items} == {str(wanted.id)}


@pytest.mark.feature("S2-58")
def test_a_job_completes_with_one_event_that_tells_its_counts_and_duration(
    here: Installation, admin: FlaskClient
) -> None:
    for _ in range(2):
        here.jobs.submit(a_request())
    here.runs.complete_all([(job, Result()) for job in here.claim()])
    alone = here.jobs.submit(a_request()).job
    here.finish(*here.claim())
    here.tick()

    items = admin.get("/v1/events?type=job.completed").get_json()["items"]

    assert [event["job_id"] for event in items][-1] == str(alone.id)
    assert len({event["job_id"] for event in items}) == len(items) == 3
    for event in items:
        assert (event["data"]["rows_done"], event["data"]["failed"]) == (0, 0)
        assert event["data"]["duration_ms"] >= 0


def test_a_stream_gives_events_as_they_come_and_goes_on_after_the_last_one_seen(
    here: Installation, admin: FlaskClient
) -> None:
    job = here.jobs.submit(a_request()).job
    here.tick()
    path, headers = f"/v1/jobs/{job.id}/events", {"Accept": "text/event-stream"}

    with admin.get(path, headers=headers, buffered=False) as answer:
        (first,) = read(answer.response, 1)
        here.work_off()
        here.tick()
        later = read(answer.response, 2)
    with admin.get(path, headers={**headers, "Last-Event-ID": first["id"]}, buffered=False) as answer:
        again = read(answer.response, 2)

    assert answer.mimetype == "text/event-stream"
    assert [first["event"], *(message["event"] for message in later)] == [
        "job.submitted",
        "job.started",
        "job.completed",
    ]
    assert again == later
    assert json.loads(first["data"])["job_id"] == str(job.id)


def test_progress_comes_between_events_and_is_not_stored(here: Installation, sessions: Sessions) -> None:
    job = here.jobs.submit(a_request()).job
    (held,) = here.claim()
    here.tick()
    feed = Feed(sessions, Places(2))
    stream = feed.stream(Wanted("default", job.id), after=2)
    with sessions.begin() as session:
        jobs.advance(session, held, rows=7)

    moved = next(stream)

    stream.close()
    assert isinstance(moved, Job)
    assert moved.progress.rows_done == 7
    assert len(here.sequence()) == 2


def test_places_are_given_back_when_the_reader_goes(here: Installation, sessions: Sessions) -> None:
    places = Places(1)
    feed = Feed(sessions, places)
    here.jobs.submit(a_request())
    here.tick()

    for _ in range(3):
        stream = feed.stream(Wanted("default"), after=0)
        next(stream)
        stream.close()

    with places.taken():
        pass


def test_readers_of_one_tenant_hear_nothing_of_another(here: Installation, sessions: Sessions) -> None:
    with sessions.begin() as session:
        add_tenant(session, "acme")
    here.jobs.submit(a_request())
    theirs = here.jobs.submit(a_request(tenant="acme")).job
    here.tick()
    feed = Feed(sessions, Places(2))

    stream = feed.stream(Wanted("acme"), after=0)
    heard = next(stream)
    stream.close()

    assert isinstance(heard, JobEvent)
    assert (heard.job_id, heard.seq) == (theirs.id, 1)


@pytest.mark.parametrize("sent", ["x", "-1", "1e3", "9" * 30])
def test_a_last_event_id_that_is_none_is_refused(here: Installation, admin: FlaskClient, sent: str) -> None:
    answer = admin.get("/v1/events", headers={"Accept": "text/event-stream", "Last-Event-ID": sent})

    assert answer.status_code == 400
    assert answer.get_json()["code"] == "request.bad_last_event_id"


def test_segments_are_looked_into_for_ends_and_what_undoes_them(sessions: Sessions) -> None:
    moves = [(event, source, move.target) for event, move in TRANSITIONS.items() for source in sorted(move.sources)]
    insert = text(
        "INSERT INTO job_events (job_id, number, tenant, type, actor, source, target, fence)"
        " VALUES (:id, 1, 'default', :event, 'engine', :source, :target, 0)"
    )
    with sessions.begin() as session:
        for event, source, target in moves:
            session.execute(insert, {"id": new_id(), "event": event, "source": source, "target": target})
        noted = session.execute(text("SELECT hands_on FROM event_segments ORDER BY id")).scalars().all()

    ends = {*TERMINAL, JobState.RETRY_WAIT}
    assert noted == [
        (source in TERMINAL or target in ends) and event is not Event.RERUN for event, source, target in moves
    ]
