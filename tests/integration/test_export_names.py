"""Exports under a chosen name: one job's at a time, whatever becomes of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.domain.clock import SystemClock
from app.domain.errors import JobError, TransientError
from app.domain.job_types import Result
from app.domain.jobs import Job
from app.domain.ports import ObjectRef
from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services.artifacts import Artifacts
from app.services.tables import Tables
from app.storage.s3 import S3Store
from config.settings import Settings
from tests.integration.exports import Exporting
from tests.integration.test_export_parts import Failing

ROWS = 100


@pytest.fixture
def exporting(sessions: Sessions, settings: Settings) -> Exporting:
    Tables(sessions).declare("default", Table("pairs", (Column("a", ColumnType.BIGINT),), ("a",)))
    with sessions.begin() as session:
        session.execute(text("INSERT INTO t_default.pairs (a) SELECT generate_series(1, :rows)"), {"rows": ROWS})
    return Exporting(settings, sessions, S3Store(settings))


@pytest.fixture
def name() -> str:
    return f"named/{uuid4()}"


def listed(exporting: Exporting, name: str) -> list[str]:
    return [key for key, _ in exporting.objects.list("haulier-test", name)]


def values(exporting: Exporting, result: Result) -> list[int]:
    bodies = [exporting.read(part["key"]) for part in exporting.manifest(result)["parts"]]
    return sorted(int(line) for body in bodies for line in body.split()[1:])


def broken_off(exporting: Exporting, name: str, **config: Any) -> Job:
    """An export in parts that has two of them and still runs."""
    job = exporting.submit("pairs", key=name, max_rows_per_part=30, **config)
    with pytest.raises(TransientError):
        exporting.run(job, Failing(exporting.objects, at=3))
    return job


def over(sessions: Sessions, job: Job, state: str) -> None:
    with sessions.begin() as session:
        session.execute(
            text("UPDATE jobs SET state = :state, finished_at = now() WHERE id = :id"), {"id": job.id, "state": state}
        )


@pytest.mark.feature("S1-09")
@pytest.mark.parametrize("if_exists", ["refuse", "number"])
def test_of_jobs_that_choose_one_name_at_once_each_has_its_own_or_none(
    exporting: Exporting, name: str, if_exists: str
) -> None:
    jobs = [exporting.submit("pairs", key=name, if_exists=if_exists) for _ in range(4)]

    def run(job: Job) -> Result | str:
        try:
            return exporting.run(job)
        except JobError as error:
            return error.code

    with ThreadPoolExecutor(4) as threads:
        ends = list(threads.map(run, jobs))

    done = [end for end in ends if isinstance(end, Result)]
    keys = {end.data["s3_key"] for end in done}
    assert [end for end in ends if isinstance(end, str)] == ["export.key_taken"] * (4 - len(done))
    assert len(keys) == len(done) == (4 if if_exists == "number" else 1)
    assert len(listed(exporting, name)) == 2 * len(done)
    assert all(values(exporting, end) == list(range(1, ROWS + 1)) for end in done)


@pytest.mark.feature("S1-09")
def test_a_name_stays_a_jobs_own_until_the_job_is_over(exporting: Exporting, name: str) -> None:
    first = broken_off(exporting, name)

    with pytest.raises(JobError) as caught:
        exporting.export("pairs", key=name, max_rows_per_part=30)
    second = exporting.export("pairs", key=name, max_rows_per_part=30, if_exists="number")
    result = exporting.run(exporting.claim(first))

    assert caught.value.code == "export.key_taken"
    assert second.data["s3_key"] == f"{name}-2-00001.csv"
    assert result.data["s3_key"] == f"{name}-00001.csv"
    assert values(exporting, result) == values(exporting, second) == list(range(1, ROWS + 1))


@pytest.mark.feature("S1-09")
def test_a_job_that_failed_leaves_nothing_to_the_next_of_its_name_and_cannot_come_back_to_it(
    exporting: Exporting, sessions: Sessions, name: str
) -> None:
    failed = broken_off(exporting, name)
    over(sessions, failed, "failed")

    result = exporting.export("pairs", key=name, max_rows_per_part=60)
    over(sessions, exporting.jobs[-1], "completed")

    files = listed(exporting, name)
    assert files == [f"{name}-00001.csv", f"{name}-00002.csv", f"{name}.manifest.json"]
    with pytest.raises(JobError) as caught:
        exporting.run(exporting.claim(failed))
    assert caught.value.code == "export.key_taken"
    assert listed(exporting, name) == files
    assert values(exporting, result) == list(range(1, ROWS + 1))


def test_the_expiry_of_a_file_that_is_gone_removes_no_file_of_the_next_of_its_name(
    exporting: Exporting, sessions: Sessions, settings: Settings, name: str
) -> None:
    exporting.export("pairs", key=name)
    over(sessions, exporting.jobs[-1], "completed")
    exporting.objects.delete([ObjectRef("haulier-test", key) for key in listed(exporting, name)])
    with sessions.begin() as session:
        session.execute(text("UPDATE artifacts SET expires_at = now() - interval '1 s'"))

    second = exporting.export("pairs", key=name)
    Artifacts(sessions, exporting.objects, settings, SystemClock()).remove_expired()

    assert second.data["s3_key"] == f"{name}.csv"
    assert values(exporting, second) == list(range(1, ROWS + 1))
