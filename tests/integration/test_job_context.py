"""What a job type can do with the job it is given: refuse records, keep its place, store files, remember, log."""

from __future__ import annotations

import hashlib
import io
import logging
import math
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import requests
from celery.exceptions import Retry
from sqlalchemy import text

from app.domain.clock import SystemClock
from app.domain.errors import FenceLost, JobCancelled, JobError, JobPaused, TransientError
from app.domain.job_types import Result
from app.domain.jobs import Outcome
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectStore
from app.domain.retry import without_delay
from app.persistence import failed_records
from app.persistence.sessions import Sessions
from app.services.artifacts import Artifacts, Download
from config.settings import Settings
from tasks import refused
from tasks.base import JobFailed
from tasks.context import RunContext
from tests.conftest import BUCKET
from tests.integration.worker import Worker


@pytest.fixture
def worker(sessions: Sessions, settings: Settings, objects: ObjectStore) -> Iterator[Worker]:
    worker = Worker(sessions, settings, objects)
    worker.heart.start()
    yield worker
    worker.heart.stop()


def attempt(worker: Worker) -> None:
    with worker.claimed() as (slot, context):
        try:
            worker.task.run_job(slot, context)
        except TransientError as error:
            worker.task.retry(exc=error)


def ledger_of(worker: Worker, job_id: UUID) -> list[Any]:
    with worker.sessions.begin() as session:
        return failed_records.of_job(session, "default", job_id)


def files_of(worker: Worker, objects: ObjectStore, settings: Settings, job_id: UUID) -> list[Download]:
    return Artifacts(worker.sessions, objects, settings, SystemClock()).of_job("default", job_id)


def make_due(worker: Worker) -> None:
    with worker.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'queued', admitted_at = now() WHERE state = 'retry_wait'"))


def take_the_fence(worker: Worker, job: RunContext) -> None:
    with worker.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET fence = fence + 1 WHERE id = :id"), {"id": job.id})


@pytest.mark.feature("S2-77")
def test_a_refused_record_stands_in_the_ledger_and_makes_the_outcome_partial(worker: Worker) -> None:
    def refuses(job: RunContext) -> Result:
        job.fail_record(7, code="x.bad", message="expected a number, got 'a'", field="amount", raw="A;a")
        return Result()

    job_id = worker.submit(refuses)

    attempt(worker)

    [record] = ledger_of(worker, job_id)
    job = worker.job(job_id)
    assert (record.line, record.field, record.code, record.raw) == (7, "amount", "x.bad", "A;a")
    assert (job.outcome, job.error_count) == (Outcome.PARTIAL, 1)


@pytest.mark.parametrize(
    ("raw", "kept", "is_base64"),
    [(None, None, False), (b"plain", "plain", False), ("a\0b", "YQBi", True), (b"\xff", "/w==", True)],
)
def test_the_text_of_a_record_is_kept_whatever_it_holds(
    worker: Worker, raw: str | bytes | None, kept: str | None, is_base64: bool
) -> None:
    job_id = worker.submit(lambda job: job.fail_record(1, code="x.bad", message="no\0", raw=raw))

    attempt(worker)

    [record] = ledger_of(worker, job_id)
    assert (record.raw, record.raw_is_base64, record.message) == (kept, is_base64, "no\\0")


def test_a_record_that_is_refused_again_by_a_later_attempt_is_counted_once(worker: Worker) -> None:
    def fails_once(job: RunContext) -> Result:
        for number in (1, 2, 2):
            job.fail_record(number, code="x.bad", message="no")
        if job.job.attempts == 1:
            raise TransientError("busy")
        return Result()

    job_id = worker.submit(fails_once, retry=without_delay())
    with pytest.raises(Retry):
        attempt(worker)
    make_due(worker)

    attempt(worker)

    assert len(ledger_of(worker, job_id)) == worker.job(job_id).error_count == 2
    assert worker.job(job_id).outcome is Outcome.PARTIAL


def test_a_checkpoint_keeps_the_records_that_were_refused_before_it(worker: Worker) -> None:
    seen = []

    def refuses(job: RunContext) -> Result:
        job.fail_record(1, code="x.bad", message="no")
        job.checkpoint({"line": 1})
        seen.extend(ledger_of(worker, job.id))
        return Result()

    worker.submit(refuses)

    attempt(worker)

    assert [record.line for record in seen] == [1]


def test_many_refused_records_are_written_without_a_checkpoint_and_late_ones_without_their_text(
    worker: Worker, settings: Settings
) -> None:
    seen = []

    def refuses(job: RunContext) -> Result:
        for number in range(refused.FLUSH_AT + 1):
            job.fail_record(number, code="x.bad", message="no", raw="raw")
        seen.append(worker.job(job.id).error_count)
        return Result()

    job_id = worker.submit(refuses)
    with worker.heart.slot() as slot:
        slot.settings = settings.model_copy(update={"ledger_raw_rows": 2})

    attempt(worker)

    assert seen == [refused.FLUSH_AT]
    assert [record.raw for record in ledger_of(worker, job_id)][:4] == ["raw", "raw", None, None]


def test_a_former_holder_refuses_no_record(worker: Worker) -> None:
    def loses(job: RunContext) -> Result:
        job.fail_record(1, code="x.bad", message="no")
        take_the_fence(worker, job)
        return Result()

    job_id = worker.submit(loses)

    attempt(worker)

    assert ledger_of(worker, job_id) == []
    assert worker.state(job_id) is JobState.RUNNING


@pytest.mark.parametrize("state", [{"x": float("nan")}, {"x": object()}, {"x": "\0"}, {"x": "y" * (1 << 20)}])
def test_a_checkpoint_that_cannot_be_kept_fails_the_job_and_says_so(worker: Worker, state: dict[str, Any]) -> None:
    job_id = worker.submit(lambda job: job.checkpoint(state))

    with pytest.raises(JobFailed):
        attempt(worker)

    assert (worker.job(job_id).error or {})["code"] == "job.checkpoint_invalid"


@pytest.mark.parametrize("size", [0, 5, (8 << 20) + 3])
def test_a_file_is_stored_with_its_job_and_can_be_downloaded(
    worker: Worker, objects: ObjectStore, settings: Settings, size: int
) -> None:
    content = b"x" * size

    def stores(job: RunContext) -> Result:
        return Result({"id": str(job.artifact("a b.csv", io.BytesIO(content), content_type="text/csv", rows=3))})

    job_id = worker.submit(stores)

    attempt(worker)

    [file] = files_of(worker, objects, settings, job_id)
    assert (worker.job(job_id).result or {})["id"] == str(file.artifact.id)
    assert (file.artifact.name, file.artifact.kind, file.artifact.rows) == ("a_b.csv", "file", 3)
    assert file.artifact.sha256 == hashlib.sha256(content).hexdigest()
    assert requests.get(file.url, timeout=10).content == content


def test_of_a_file_that_two_attempts_stored_the_last_one_is_left(
    worker: Worker, objects: ObjectStore, settings: Settings
) -> None:
    def stores(job: RunContext) -> Result:
        job.artifact("kept.txt" if job.job.attempts == 1 else "other.txt", b"kept")
        job.artifact("sums.txt", f"attempt {job.job.attempts}".encode())
        if job.job.attempts == 1:
            raise TransientError("busy")
        return Result()

    job_id = worker.submit(stores, retry=without_delay())
    with pytest.raises(Retry):
        attempt(worker)
    make_due(worker)

    attempt(worker)

    files = {
        file.artifact.name: requests.get(file.url, timeout=10).text
        for file in files_of(worker, objects, settings, job_id)
    }
    assert files == {"kept.txt": "kept", "other.txt": "kept", "sums.txt": "attempt 2"}
    assert len([key for key, _ in objects.list(BUCKET, "") if str(job_id) in key]) == 3


def test_a_former_holder_leaves_no_file(worker: Worker, objects: ObjectStore, settings: Settings) -> None:
    def loses(job: RunContext) -> Result:
        take_the_fence(worker, job)
        job.artifact("late.txt", b"late")
        return Result()

    job_id = worker.submit(loses)

    attempt(worker)

    assert files_of(worker, objects, settings, job_id) == []
    assert [key for key, _ in objects.list(BUCKET, "") if str(job_id) in key] == []


@pytest.mark.feature("S2-100")
def test_a_cached_value_is_there_for_the_tenants_next_job_until_its_time_is_over(worker: Worker) -> None:
    seen = []
    worker.submit(lambda job: job.cache.set("rate", {"EUR": 1.1}, ttl_s=60))
    worker.submit(lambda job: seen.extend([job.cache.get("rate"), job.cache.get("none", 5)]))
    worker.submit(lambda job: seen.append(job.cache.get("rate")))

    attempt(worker)
    attempt(worker)
    with worker.sessions.begin() as session:
        session.execute(text("UPDATE cache_entries SET expires_at = now()"))
    attempt(worker)

    assert seen == [{"EUR": 1.1}, 5, None]


def test_a_full_cache_lets_go_of_what_would_expire_first(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.persistence.cache.MOST_VALUES", 2)

    def fills(job: RunContext) -> Result:
        for key, ttl_s in (("long", 300), ("short", 10), ("middle", 100)):
            job.cache.set(key, key, ttl_s=ttl_s)
        return Result({key: job.cache.get(key) for key in ("long", "short", "middle")})

    job_id = worker.submit(fills)

    attempt(worker)

    assert worker.job(job_id).result == {"long": "long", "short": None, "middle": "middle"}


@pytest.mark.parametrize(
    ("key", "value", "ttl_s", "error"),
    [
        ("", 1, 60, ValueError),
        ("k" * 256, 1, 60, ValueError),
        ("k", 1, 0, ValueError),
        ("k", object(), 60, JobError),
        ("k", "x" * 70_000, 60, JobError),
    ],
)
def test_what_cannot_be_cached_is_refused(
    worker: Worker, key: str, value: object, ttl_s: float, error: type[Exception]
) -> None:
    worker.submit(lambda job: Result())

    with worker.claimed() as (_, context), pytest.raises(error):
        context.cache.set(key, value, ttl_s=ttl_s)


def test_a_former_holder_caches_nothing(worker: Worker) -> None:
    worker.submit(lambda job: Result())

    with worker.claimed() as (_, context):
        take_the_fence(worker, context)
        with pytest.raises(FenceLost):
            context.cache.set("k", 1)

        assert context.cache.get("k") is None


@pytest.mark.feature("S2-96")
def test_a_line_of_the_jobs_log_bears_its_id_and_its_tenant(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    job_id = worker.submit(lambda job: job.log.warning("mine.said", extra={"rows": 5}))

    with caplog.at_level(logging.WARNING, "haulier.job"):
        attempt(worker)

    [line] = [record for record in caplog.records if record.name == "haulier.job"]
    assert (line.job_id, line.tenant, line.attempt, line.rows) == (str(job_id), "default", 1, 5)  # type: ignore[attr-defined]  # what extra= brought


@pytest.mark.parametrize(
    "data", [{"header": "i\0d"}, {"n\0": [{"half": "\ud83d"}]}, {"set": {1}, "n": float("nan")}], ids=str
)
def test_a_failure_is_kept_whatever_its_facts_hold(worker: Worker, data: dict[str, Any]) -> None:
    def fails(job: RunContext) -> Result:
        raise JobError("no\0", code="x.bad", hint="see\0", data=data)

    job_id = worker.submit(fails)

    with pytest.raises(JobFailed):
        attempt(worker)

    job = worker.job(job_id)
    assert (job.state, job.error["code"], job.error["message"]) == (JobState.FAILED, "x.bad", "no\\0")
    assert job.error["data"].keys() == {name.replace("\0", "\\0") for name in data}


@pytest.mark.parametrize(
    ("stop", "kept"),
    [
        (JobPaused("see\0", code="x.held", data={"n": "\ud83d"}), (JobState.OPEN, "see\\0", None)),
        (JobCancelled("no\0"), (JobState.CANCELLED, None, "no\\0")),
    ],
    ids=["paused", "cancelled"],
)
def test_a_job_stops_whatever_its_reason_holds(worker: Worker, stop: Exception, kept: tuple[Any, ...]) -> None:
    def stops(job: RunContext) -> Result:
        raise stop

    job_id = worker.submit(stops)

    attempt(worker)

    job = worker.job(job_id)
    assert (job.state, (job.error or {}).get("message"), job.cancel_reason) == kept


def test_a_crash_leaves_its_traceback_in_the_jobs_own_log(worker: Worker) -> None:
    def divides(_: RunContext) -> Result:
        return Result({"mean": 1 / 0})

    job_id = worker.submit(divides)

    with pytest.raises(JobFailed):
        attempt(worker)

    with worker.sessions.begin() as session:
        data = session.execute(text("SELECT data FROM job_logs WHERE job_id = :id"), {"id": job_id}).scalar_one()
    assert "in divides" in data["exception"]
    assert data["exception"].endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("done", "total", "stage", "said"),
    [
        (-1, 10, None, f"done of a progress is 0 to {2**63 - 1}, got -1"),
        (math.nan, 10, None, f"done of a progress is 0 to {2**63 - 1}, got nan"),
        ("5", 10, None, f"done of a progress is 0 to {2**63 - 1}, got '5'"),
        (5, 2**63, None, f"total of a progress is 0 to {2**63 - 1}, got {2**63}"),
        (5, 10, 7, "a stage is a text of at most 255 characters, got 7"),
        (5, 10, "x" * 256, "a stage is a text of at most 255 characters, got 'xxx"),
    ],
)
def test_a_progress_that_is_none_is_refused_at_its_first_call(
    worker: Worker, done: Any, total: Any, stage: Any, said: str
) -> None:
    def run(job: RunContext) -> Result:
        job.progress(0, 10)
        job.progress(done, total, stage=stage)
        return Result()

    job_id = worker.submit(run)

    with pytest.raises(JobFailed):
        attempt(worker)

    assert (worker.job(job_id).error or {})["message"].startswith(f"ValueError: {said}")


def test_more_done_than_there_is_shows_as_all_of_it(worker: Worker) -> None:
    job_id = worker.submit(lambda job: job.progress(11, 10, stage="a \ud800 b"))

    attempt(worker)

    progress = worker.job(job_id).progress
    assert (progress.rows_done, progress.stage, progress.fraction) == (11, "a ? b", 1.0)


@pytest.mark.parametrize(
    ("number", "changes", "said"),
    [
        (1.5, {}, f"ValueError: the number of a record is 0 to {2**63 - 1}, got 1.5"),
        (True, {}, f"ValueError: the number of a record is 0 to {2**63 - 1}, got True"),
        ("7", {}, f"ValueError: the number of a record is 0 to {2**63 - 1}, got '7'"),
        (7, {"message": None}, "TypeError: the message of a refused record is a text, got None"),
        (7, {"field": 3}, "TypeError: the field of a refused record is a text, got 3"),
    ],
)
def test_what_is_no_record_is_refused_in_words(worker: Worker, number: Any, changes: Any, said: str) -> None:
    job_id = worker.submit(lambda job: job.fail_record(number, **{"code": "x.bad", "message": "bad", **changes}))

    with pytest.raises(JobFailed):
        attempt(worker)

    assert (worker.job(job_id).error or {})["message"] == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stream": "text"}, "TypeError: a file is bytes, or has read(), got str"),
        (
            {"content_type": "a\nb"},
            "ValueError: a content type has 1 to 255 printable characters of ASCII, got 'a\\nb'",
        ),
        ({"rows": -1}, f"ValueError: the number of rows of a file is 0 to {2**63 - 1}, got -1"),
        ({"rows": 2**63}, f"ValueError: the number of rows of a file is 0 to {2**63 - 1}, got {2**63}"),
    ],
)
def test_what_is_no_file_is_refused_in_words(worker: Worker, changes: dict[str, Any], said: str) -> None:
    job_id = worker.submit(lambda job: job.artifact(**{"name": "sums.csv", "stream": b"x", **changes}) and None)

    with pytest.raises(JobFailed):
        attempt(worker)

    assert (worker.job(job_id).error or {})["message"] == said
