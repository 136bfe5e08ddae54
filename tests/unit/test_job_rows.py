"""A row of ``jobs`` as the domain object."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from app.domain.jobs import Job, Origin, Outcome, Priority
from app.domain.lifecycle import JobState
from app.domain.measures import Measures
from app.domain.progress import Progress
from app.domain.resources import Resources
from app.domain.retry import RetryPolicy
from app.persistence.job_rows import COLUMNS, to_job
from tests.factories import a_job

NAMES = [column.strip().rpartition(" ")[2] for column in COLUMNS.split(",")]
AT = datetime(2026, 11, 1, tzinfo=UTC)


def a_row(**changes: Any) -> Any:
    values = dict.fromkeys(NAMES) | {
        "state": "running",
        "priority": 1,
        "retry": json.dumps(RetryPolicy().as_json()),
        "origin": "native",
        "rows_done": 0,
        "bytes_done": 0,
        "parts_done": 0,
        "concurrency_key": "",
        "max_concurrency": 0,
    }
    return namedtuple("Row", NAMES)(**values | changes)


def test_a_row_gives_every_attribute_of_a_job() -> None:
    job = to_job(a_row())

    assert vars(job).keys() == {field.name for field in fields(Job)}


def test_a_row_is_the_job_that_it_says() -> None:
    policy = RetryPolicy(maximum_attempts=7, non_retryable=("ValueError",))
    expected = a_job(
        id=uuid4(),
        state=JobState.COMPLETED,
        priority=Priority.HIGH,
        retry=policy,
        origin=Origin.SYSTEM,
        outcome=Outcome.PARTIAL,
        progress=Progress(1, 2, 3, 4, "load", 5, 6),
        concurrency_key="crm",
        max_concurrency=3,
        resources=Resources(512, 1500),
        measures=Measures({"cpu_s": 1.5}, AT, {"read": 2.0}, AT, 0.5),
        labels={"team": "data"},
    )
    plain = {name: value for name, value in vars(expected).items() if name in NAMES}

    job = to_job(
        a_row(
            **plain
            | {"state": "completed", "priority": 0, "origin": "system", "outcome": "partial"}
            | {
                "retry": json.dumps(policy.as_json()),
                "rows_done": 1,
                "rows_total": 2,
                "bytes_done": 3,
                "bytes_total": 4,
            }
            | {"stage": "load", "parts_done": 5, "parts_total": 6, "memory_mb": 512, "cpu_m": 1500}
            | {"spent": {"cpu_s": 1.5}, "stage_at": AT, "stage_seconds": {"read": 2.0}}
            | {"midway_at": AT, "midway_part": 0.5}
        )
    )

    assert job == expected


def test_jobs_without_a_key_or_bound_have_none() -> None:
    job = to_job(a_row())

    assert (job.concurrency_key, job.max_concurrency) == (None, None)
