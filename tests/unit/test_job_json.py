"""The fast form of a job's body."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from app.api.job_schemas import JobSchema, job_json
from app.domain.jobs import Outcome
from app.domain.lifecycle import JobState
from app.domain.progress import Progress
from tests.factories import a_job


def test_the_fast_form_of_a_job_is_its_schemas_form() -> None:
    start = datetime(2026, 11, 1, 12, 0, 0, 123456, tzinfo=UTC)
    ended = a_job(
        state=JobState.COMPLETED,
        outcome=Outcome.PARTIAL,
        started_at=start,
        finished_at=start + timedelta(seconds=3),
        progress=Progress(10, 10, 5, 5, "load"),
        counters={"loaded": 9, "failed": 1},
        error={"code": "x"},
    )

    for job in (ended, a_job()):
        assert json.loads(job_json(job)) == json.loads(json.dumps(JobSchema().dump(job)))
