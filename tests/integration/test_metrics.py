"""What a job cost and how fast it went; figures over many jobs; the page that Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from app.domain.clock import SystemClock
from app.domain.errors import JobError, JobPaused, TransientError
from app.domain.job_types import Result
from app.domain.jobs import Outcome
from app.domain.ports import ObjectRef, ObjectStore
from app.persistence.sessions import Sessions
from app.services.reading import Reading
from app.services.statistics import Statistics
from config.settings import Settings
from tasks.context import RunContext
from tasks.types.export_rows import JOB_TYPE as EXPORT
from tasks.types.import_rows import JOB_TYPE as IMPORT
from tests.conftest import BUCKET
from tests.integration.conftest import Client
from tests.integration.worker import Worker, attempt, run_small


@pytest.fixture
def worker(sessions: Sessions, settings: Settings, objects: ObjectStore) -> Iterator[Worker]:
    worker = Worker(sessions, settings, objects, types=(IMPORT, EXPORT))
    worker.heart.start()
    yield worker
    worker.heart.stop()


def submit(client: Client, type_: str, config: dict[str, Any]) -> str:
    answer = client.post("/v1/jobs", {"type": type_, "config": config})
    assert answer.status_code == 202, answer.get_json()
    return f"/v1/jobs/{answer.get_json()['id']}"


@pytest.mark.feature("S0-28", "S2-95")
def test_an_import_and_an_export_tell_their_rates_and_what_they_cost(
    worker: Worker, member: Client, objects: ObjectStore
) -> None:
    lines = "".join(f"p{n},p{n}@b.c,DE\n" for n in range(500))
    objects.put(
        ObjectRef(BUCKET, "uploads/in.csv"), f"first_name,email,country\n{lines}".encode(), content_type="text/csv"
    )
    loading = submit(
        member, "import", {"source": {"s3": {"key": "uploads/in.csv"}}, "batch_rows": 100, "table": "contacts"}
    )
    attempt(worker)
    writing = submit(member, "export", {"table": "contacts", "format": "csv"})
    attempt(worker)

    jobs = [member.get(path).get_json() for path in (loading, writing)]
    results = [member.get(f"{path}/result").get_json() for path in (loading, writing)]

    for job, result in zip(jobs, results, strict=True):
        metrics = job["metrics"]
        assert job["state"] == "completed", job["error"]
        assert metrics == result["metrics"]
        assert metrics["duration_ms"] == job["duration_ms"] > 0
        assert metrics["rows_per_s"] > 0
        assert metrics["bytes_per_s"] > 0
        assert metrics["cpu_s"] > 0
        assert 10 < metrics["peak_rss_mb"] < 10_000
        assert 0 < metrics["s3_s"] < 60
        assert 0 < metrics["database_s"] < 60
    assert set(jobs[0]["metrics"]["stages"]) == {"loading", "loaded"}
    assert "exported" in jobs[1]["metrics"]["stages"]


def test_a_job_that_shares_its_process_tells_no_cost(
    sessions: Sessions, settings: Settings, objects: ObjectStore, member: Client
) -> None:
    small = Worker(sessions, settings, objects, cheap=True)
    small.heart.start()
    job_id = small.submit(lambda _: Result())

    run_small(small)

    small.heart.stop()
    metrics = member.get(f"/v1/jobs/{job_id}").get_json()["metrics"]
    assert metrics["cpu_s"] is metrics["peak_rss_mb"] is None
    assert metrics["duration_ms"] >= 0


def test_what_attempts_cost_is_added_up_however_they_end(worker: Worker, member: Client, sessions: Sessions) -> None:
    runs: list[float] = []

    def burn(job: RunContext) -> Result | None:
        total = sum(range(400_000))
        assert total
        runs.append((job.job.measures.spent or {}).get("cpu_s", 0.0))
        if len(runs) == 1:
            raise TransientError("not yet")
        if len(runs) == 2:
            raise JobPaused("wait")
        if len(runs) == 3:
            raise JobError("no")
        return None

    job_id = worker.submit(burn)
    attempt(worker)
    for again in (None, ":resume", ":retry"):
        assert again is None or member.post(f"/v1/jobs/{job_id}{again}").status_code == 200
        with sessions.begin() as session:
            session.execute(
                text("UPDATE jobs SET state = 'queued', admitted_at = now() WHERE id = :id"), {"id": job_id}
            )
        attempt(worker)

    job = worker.job(job_id)
    assert (job.outcome, len(runs)) == (Outcome.SUCCESS, 4)
    assert 0 < runs[1] < runs[2] < runs[3] < (job.measures.spent or {})["cpu_s"]


def test_a_job_notes_how_long_its_stages_took(worker: Worker, member: Client, sessions: Sessions) -> None:
    def stages(job: RunContext) -> None:
        job.progress(0, 4, stage="reading")
        with job.sessions.begin() as session:
            session.execute(
                text(
                    "UPDATE jobs SET stage_at = stage_at - interval '5 s', attempt_started_at = "
                    "attempt_started_at - interval '1 hour' WHERE id = :id"
                ),
                {"id": job.id},
            )
        job.progress(1, 4, stage="writing")
        job.progress(2, 4, stage="writing")

    job_id = worker.submit(stages)

    attempt(worker)

    stages_s = member.get(f"/v1/jobs/{job_id}").get_json()["metrics"]["stages"]
    assert list(stages_s) == ["reading", "writing"]
    assert 5 <= stages_s["reading"] < 15


@pytest.mark.feature("S0-15")
def test_the_range_of_an_eta_comes_from_past_jobs_and_its_error_is_kept(
    worker: Worker, member: Client, sessions: Sessions
) -> None:
    seen: list[dict[str, Any]] = []

    def steps(job: RunContext) -> None:
        for done in (1, 2, 3, 4):
            job.progress(done, 4, stage=f"step {done}")
        seen.append(member.get(f"/v1/jobs/{job.id}").get_json()["progress"])

    first = worker.submit(steps)
    attempt(worker)
    error = member.get(f"/v1/jobs/{first}").get_json()["metrics"]["eta_error"]
    _past(sessions, first, ratio=3.0)
    late = [worker.submit(steps) for _ in range(2)]
    for job_id in late:
        attempt(worker)
        _past(sessions, job_id, ratio=3.0)

    assert isinstance(error, float)
    assert seen[0]["eta_earliest"] <= seen[0]["eta"] <= seen[0]["eta_latest"]
    ratios = Statistics(Reading(sessions, timeout_s=10), SystemClock()).past_ratios("default", "do")
    assert ratios == pytest.approx([3.0, 3.0, 3.0])


def _past(sessions: Sessions, job_id: UUID, *, ratio: float) -> None:
    """Make the job one whose second half took ``ratio`` times its first."""
    with sessions.begin() as session:
        session.execute(
            text(
                "UPDATE jobs SET midway_part = 0.5, midway_at = started_at + interval '10 s', "
                "finished_at = started_at + interval '10 s' + :rest * interval '1 s' WHERE id = :id"
            ),
            {"rest": 10 * ratio, "id": job_id},
        )


def _ended(sessions: Sessions, job_id: UUID, seconds: float, rows: int) -> None:
    with sessions.begin() as session:
        session.execute(
            text(
                "UPDATE jobs SET started_at = now() - :s * interval '1 s', finished_at = now(), rows_done = :rows "
                "WHERE id = :id"
            ),
            {"s": seconds, "rows": rows, "id": job_id},
        )


@pytest.mark.feature("S2-105", "S4-122", "S4-126")
def test_statistics_tell_durations_rates_and_a_histogram_by_type(
    worker: Worker, member: Client, stranger: Client, sessions: Sessions
) -> None:
    for seconds, rows in ((1, 100), (2, 400), (3, 900), (400, 0)):
        job_id = worker.submit(lambda _: None)
        attempt(worker)
        _ended(sessions, job_id, seconds, rows)

    body = {
        window: member.get("/v1/statistics", query_string={"window": window}).get_json()
        for window in ("24h", "7d", "30d")
    }

    [of_type] = body["24h"]["items"]
    assert (of_type["type"], of_type["state"], of_type["jobs"], of_type["rows"]) == ("do", "completed", 4, 1400)
    assert of_type["jobs_per_min"] == pytest.approx(4 / 1440, abs=1e-4)
    assert of_type["duration_s"]["p50"] == pytest.approx(2.5)
    assert of_type["duration_s"]["p95"] == pytest.approx(340.45)
    assert of_type["rows_per_s"]["p50"] == pytest.approx(200)
    counts = {bucket["up_to_s"]: bucket["jobs"] for bucket in of_type["histogram"]}
    assert (counts[0.5], counts[1.0], counts[5.0], counts[300.0], counts[1800.0]) == (0, 1, 3, 3, 4)
    assert [len(body[window]["items"]) for window in ("7d", "30d")] == [1, 1]
    assert stranger.get("/v1/statistics").get_json()["items"] == []
    assert member.get("/v1/statistics", query_string={"window": "2y"}).status_code == 422


@pytest.mark.feature("S0-28", "S4-123", "S4-125")
def test_prometheus_reads_queues_workers_and_recent_jobs(
    worker: Worker, admin: Client, member: Client, sessions: Sessions
) -> None:
    job_id = worker.submit(lambda _: None)
    attempt(worker)
    _ended(sessions, job_id, 2, 300)
    worker.submit(lambda _: None)
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET due_at = now() - interval '90 s' WHERE state = 'queued'"))

    answer = admin.get("/metrics")

    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.get_data(as_text=True)):
        # Labels come in the order of their names.
        found[family.name] = {tuple(one.labels.values()): one.value for one in family.samples}
    assert found["haulier_queue_jobs"]["data", "queued"] == 1
    assert found["haulier_queue_oldest_wait_seconds"]["data",] >= 90
    assert found["haulier_queue_slots"]["data",] == 1
    assert found["haulier_worker_slots"]["data", "test"] == 1
    assert found["haulier_worker_busy_slots"]["data", "test"] == 0
    assert found["haulier_jobs"]["queued",] == 1
    assert found["haulier_recent_jobs"]["completed", "do"] == 1
    assert found["haulier_recent_rows"]["completed", "do"] == 300
    assert found["haulier_recent_job_duration_seconds"]["0.95", "completed", "do"] == pytest.approx(2)
    assert found["haulier_recent_job_rows_per_second"]["0.5", "completed", "do"] == pytest.approx(150)
    assert member.get("/metrics").status_code == 403
    assert Client(admin.app, None).get("/metrics").status_code == 401


def test_figures_are_worked_out_once_in_a_while(worker: Worker, member: Client) -> None:
    before = member.get("/v1/statistics").get_json()
    worker.submit(lambda _: None)
    attempt(worker)

    after = member.get("/v1/statistics").get_json()

    assert before == after
