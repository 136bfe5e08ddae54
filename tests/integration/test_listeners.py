"""Listeners of other packages hear what happens to jobs: at least once, in order, and without holding anything up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.listeners import ENTRY_POINT_GROUP, HeardEvent, Listener
from app.domain.retry import RetryPolicy
from app.engine import listen
from app.engine.fold import fold
from app.engine.listen import Hearing, Listening, find_listeners
from app.persistence.sessions import Sessions
from tests.factories import a_request
from tests.integration.families import Installation
from tests.integration.packages import install, install_example
from tests.integration.worker import within


@pytest.fixture
def installation(sessions: Sessions) -> Installation:
    return Installation(sessions)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tries without a wait."""
    monkeypatch.setattr(listen, "TRIES", RetryPolicy(3, 0.0, 1.0, 0.0))


def a_hearing(
    sessions: Sessions,
    handle: Callable[[HeardEvent], Any],
    *,
    leads: Callable[[], bool] = lambda: True,
    begin: bool = True,
    **filters: Any,
) -> Hearing:
    """A listener that has begun to hear, unless it is said to begin later."""
    hearing = Hearing(sessions, Listener(name="mine", handle=handle, **filters), leads)
    if begin:
        hearing.hear()
    return hearing


def run_jobs(installation: Installation, count: int, *, tenant: str = "default") -> None:
    """Submit and complete jobs: three numbered events each."""
    for _ in range(count):
        installation.jobs.submit(a_request(tenant=tenant))
    installation.finish(*installation.claim())
    fold(installation.leader)


@pytest.mark.feature("S2-06")
def test_every_event_is_heard_in_order_with_its_tenant_and_type(installation: Installation, sessions: Sessions) -> None:
    heard: list[HeardEvent] = []
    hearing = a_hearing(sessions, heard.append)
    run_jobs(installation, 50)

    count = hearing.hear()

    assert count == len(heard) == 150
    assert [event.seq for event in heard] == list(range(1, 151))
    assert {(event.tenant, event.job_type) for event in heard} == {("default", "echo")}
    assert hearing.hear() == 0


@pytest.mark.feature("S2-06")
def test_a_filter_lets_through_only_its_events_and_job_types(installation: Installation, sessions: Sessions) -> None:
    heard: list[HeardEvent] = []
    ends = a_hearing(sessions, heard.append, events=frozenset({"job.completed"}), job_types=frozenset({"echo"}))
    installation.jobs.submit(a_request(type="fail"))
    run_jobs(installation, 2)

    count = ends.hear()

    assert count == 2
    assert {(event.type, event.job_type) for event in heard} == {("job.completed", "echo")}


@pytest.mark.feature("S2-55")
def test_a_listener_may_hear_of_one_job_alone(installation: Installation, sessions: Sessions) -> None:
    wanted = installation.jobs.submit(a_request()).job
    heard: list[HeardEvent] = []
    hearing = a_hearing(sessions, heard.append, wants=lambda event: event.job_id == wanted.id)
    run_jobs(installation, 2)

    count = hearing.hear()

    assert count > len(heard) > 0
    assert {event.job_id for event in heard} == {wanted.id}


def test_a_new_listener_hears_what_happens_from_then_on_and_of_a_new_tenant_everything(
    installation: Installation, sessions: Sessions
) -> None:
    run_jobs(installation, 1)
    heard: list[HeardEvent] = []
    hearing = a_hearing(sessions, heard.append)
    run_jobs(installation, 1)
    run_jobs(installation, 1, tenant="acme")

    hearing.hear()

    assert [(event.tenant, event.seq) for event in heard] == [("acme", n) for n in (1, 2, 3)] + [
        ("default", n) for n in (4, 5, 6)
    ]


@pytest.mark.feature("S2-06")
def test_a_listener_that_was_killed_before_its_cursor_moved_hears_the_events_again(
    installation: Installation, sessions: Sessions
) -> None:
    heard: list[int | None] = []

    def dies_at_three(event: HeardEvent) -> None:
        if event.seq == 3 and 3 not in heard:
            heard.append(3)
            raise KeyboardInterrupt
        heard.append(event.seq)

    hearing = a_hearing(sessions, dies_at_three)
    run_jobs(installation, 1)
    with pytest.raises(KeyboardInterrupt):
        hearing.hear()

    a_hearing(sessions, dies_at_three).hear()

    assert heard == [1, 2, 3, 1, 2, 3]


def test_an_event_that_raises_is_tried_again_before_the_next_one_is_heard(
    installation: Installation, sessions: Sessions, at_once: None
) -> None:
    heard: list[int | None] = []

    def stumbles(event: HeardEvent) -> None:
        heard.append(event.seq)
        if heard == [1, 2]:
            raise ValueError

    hearing = a_hearing(sessions, stumbles)
    run_jobs(installation, 1)

    hearing.hear()

    assert heard == [1, 2, 2, 3]


def test_an_event_that_is_poison_is_left_out_after_some_tries_and_logged(
    installation: Installation, sessions: Sessions, at_once: None, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int | None] = []

    def chokes(event: HeardEvent) -> None:
        heard.append(event.seq)
        if event.seq == 2:
            raise ValueError

    hearing = a_hearing(sessions, chokes)
    run_jobs(installation, 1)

    hearing.hear()

    [skipped] = [record for record in caplog.records if record.message == "listener.skipped"]
    assert heard == [1, 2, 2, 2, 3]
    assert (skipped.seq, skipped.listener, skipped.tries) == (2, "mine", 3)  # type: ignore[attr-defined]  # what extra= brought


def test_an_engine_that_no_longer_leads_hands_on_nothing_more(installation: Installation, sessions: Sessions) -> None:
    heard: list[int | None] = []
    hearing = a_hearing(sessions, lambda event: heard.append(event.seq), leads=lambda: len(heard) < 2)
    run_jobs(installation, 1)

    hearing.hear()
    a_hearing(sessions, lambda event: heard.append(event.seq)).hear()

    assert heard == [1, 2, 3]


def test_a_cursor_that_another_engine_has_moved_stays_where_it_is(
    installation: Installation, sessions: Sessions
) -> None:
    heard: list[int | None] = []

    def overtaken(event: HeardEvent) -> None:
        heard.append(event.seq)
        with sessions.begin() as session:
            session.execute(text("UPDATE cursors SET position = 3 WHERE tenant = 'default'"))

    hearing = a_hearing(sessions, overtaken, events=frozenset({"job.submitted"}))
    run_jobs(installation, 1)
    hearing.hear()

    assert heard == [1]
    assert hearing.hear() == 0


def test_a_listener_that_hangs_holds_up_no_other_and_not_the_end_of_its_engine(
    installation: Installation, sessions: Sessions
) -> None:
    let_go, hangs, heard = threading.Event(), threading.Event(), []

    def hang(event: HeardEvent) -> None:
        hangs.set()
        let_go.wait(120)

    listeners = [Listener(name="hangs", handle=hang), Listener(name="hears", handle=heard.append)]
    listening = Listening(sessions, listeners, _true)
    listening.start()
    try:
        assert within(60, lambda: _cursors(sessions) == {"hangs", "hears"})
        run_jobs(installation, 1)
        listening.wake()

        assert within(60, lambda: len(heard) == 3)
        assert hangs.wait(60)
        listening.stop(patience_s=0)
    finally:
        let_go.set()
        listening.stop(patience_s=60)


def _cursors(sessions: Sessions) -> set[str]:
    with sessions.begin() as session:
        return set(session.execute(text("SELECT name FROM cursors")).scalars())


def _true() -> bool:
    return True


@pytest.mark.feature("S2-06")
def test_listeners_are_found_by_their_entry_points_and_a_broken_one_is_left_out_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    install_example(tmp_path)
    install(tmp_path, "broken", {ENTRY_POINT_GROUP: {"theirs": "not_installed_anywhere:LISTENER"}})

    found = find_listeners()

    [line] = [record for record in caplog.records if record.message == "listener.not_loaded"]
    assert [listener.name for listener in found] == ["transfers_audit"]
    assert "entry point theirs = not_installed_anywhere:LISTENER" in line.error  # type: ignore[attr-defined]  # what extra= brought
