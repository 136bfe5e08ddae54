"""The lifecycle table."""

from __future__ import annotations

from itertools import product

import pytest

from app.domain.lifecycle import TERMINAL, TRANSITIONS, Event, JobState, is_legal


def test_no_event_but_those_that_open_again_starts_from_a_terminal_state() -> None:
    leaving = {event for event, move in TRANSITIONS.items() if move.sources & TERMINAL}

    assert leaving == {Event.REOPEN, Event.RERUN, Event.RENEW}


def test_completed_jobs_never_move() -> None:
    assert not [target for target in JobState if is_legal(JobState.COMPLETED, target)]


@pytest.mark.feature("S4-47")
def test_exactly_the_drawn_moves_are_legal() -> None:
    legal = {(source, target) for source, target in product(JobState, JobState) if is_legal(source, target)}

    assert legal == {
        (JobState(source), JobState(target))
        for source, targets in {
            "blocked": ("open", "failed", "cancelled"),
            "open": ("queued", "running", "cancelled"),
            "queued": ("open", "running", "cancelled"),
            "running": ("open", "retry_wait", "completed", "failed", "cancelled"),
            "retry_wait": ("open", "queued", "cancelled"),
            "failed": ("open", "blocked"),
            "cancelled": ("open", "blocked"),
        }.items()
        for target in targets
    }
