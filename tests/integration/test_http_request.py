"""The job type ``http_request``, run as a worker's thread runs it, against servers on loopback."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import UUID

import pytest
from celery.exceptions import Retry

from app.domain.errors import InvalidRequestError, JobCancelled, TransientError
from app.domain.job_types import Registry
from app.domain.jobs import Job, Priority, SubmitJob
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectStore
from app.domain.retry import RetryPolicy, without_delay
from app.persistence import admission
from app.persistence.sessions import Sessions
from config.settings import Settings
from tasks.base import JobFailed
from tasks.context import HandBack
from tasks.slot import Heart, Slot
from tasks.types.http_request import JOB_TYPE
from tests.integration.conftest import Client
from tests.integration.worker import a_task, jobs_of
from tests.loopback import Loopback, answering, endless, servers

POLICY = RetryPolicy(maximum_attempts=3, initial_interval_s=0.0, maximum_interval_s=0.0, jitter=False)


class Bench:
    """One slot of an http worker that may call 127.0.0.1."""

    def __init__(self, sessions: Sessions, settings: Settings, objects: ObjectStore) -> None:
        registry = Registry({JOB_TYPE.name: JOB_TYPE})
        self.service = jobs_of(sessions, registry)
        self.settings = settings.model_copy(update={"allow_private_hosts": ("127.0.0.1/32",)})
        self.sessions = sessions
        self.task = a_task(registry)
        self.heart = Heart(self.settings, objects, queue_name="http", process="test", slots=1, may_kill=False)

    def submit(self, server: Loopback, path: str = "/", *, retry: RetryPolicy = POLICY, **config: Any) -> UUID:
        config = {"url": server.url(path), **config}
        request = SubmitJob(tenant="default", type=JOB_TYPE.name, config=config, created_by="test", retry=retry)
        return self.service.submit(request).job.id

    def attempt(self, slot: Slot, server: Loopback, *, meanwhile: Callable[[Slot], None] | None = None) -> None:
        """One attempt at the job that is next; a thread does ``meanwhile`` as it runs."""
        slot.settings = self.settings.model_copy(update={"outgoing_ports": frozenset({server.port})})
        (job,) = slot.runs.claim("http", slot.id, most=1, oldest=False)
        helper = threading.Thread(target=meanwhile or (lambda _: None), args=(slot,))
        context = slot.hold(job)
        helper.start()
        try:
            self.task.run_job(slot, context)
        except TransientError as error:
            with pytest.raises((Retry, JobFailed)):
                self.task.retry(exc=error)
        except JobFailed:
            return
        finally:
            helper.join()

    def admit(self) -> None:
        with self.sessions.begin() as session:
            admission.admit(session, "http", Priority.NORMAL, bound=100)

    def job(self, job_id: UUID) -> Job:
        return self.service.get("default", job_id)


@pytest.fixture
def start() -> Iterator[Callable[..., Loopback]]:
    with servers() as starting:
        yield starting


@pytest.fixture
def bench(sessions: Sessions, settings: Settings, objects: ObjectStore) -> Iterator[Bench]:
    bench = Bench(sessions, settings, objects)
    bench.heart.start()
    yield bench
    bench.heart.stop()


@pytest.fixture
def slot(bench: Bench) -> Iterator[Slot]:
    with bench.heart.slot() as slot:
        yield slot


Start = Callable[..., Loopback]


def test_the_answer_is_the_jobs_result(bench: Bench, slot: Slot, start: Start) -> None:
    server = start(answering(b'{"id": 7}', 201, content_type="application/json", set_cookie="s=1", etag='"v"'))
    job_id = bench.submit(server, "/items?x=1", method="POST", body={"name": "ä"}, headers={"X-Trace": "t"})

    bench.attempt(slot, server)

    job = bench.job(job_id)
    (seen,) = server.seen
    assert job.state is JobState.COMPLETED
    assert job.result is not None
    assert {name: job.result[name] for name in ("status", "body", "body_encoding", "body_truncated")} == {
        "status": 201,
        "body": {"id": 7},
        "body_encoding": "json",
        "body_truncated": False,
    }
    assert job.result["headers"]["etag"] == '"v"'
    assert "set-cookie" not in job.result["headers"]
    assert job.result["elapsed_ms"] >= 0
    assert (seen.method, seen.path, json.loads(seen.body)) == ("POST", "/items?x=1", {"name": "ä"})
    assert (seen.headers["content-type"], seen.headers["x-trace"]) == ("application/json", "t")


def test_text_is_sent_as_it_is(bench: Bench, slot: Slot, start: Start) -> None:
    server = start(answering())
    bench.submit(server, method="PUT", body="a,b\n", headers={"content-type": "text/csv"})

    bench.attempt(slot, server)

    assert (server.seen[0].body, server.seen[0].headers["content-type"]) == (b"a,b\n", "text/csv")


def test_an_unexpected_status_fails_the_job_for_good_and_shows_the_answer(
    bench: Bench, slot: Slot, start: Start
) -> None:
    server = start(answering(b"no such thing", 404, content_type="text/plain"))
    job_id = bench.submit(server)

    bench.attempt(slot, server)

    job = bench.job(job_id)
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    assert job.error is not None
    assert job.error["code"] == "http.status_unexpected"
    assert job.error["data"] == {"status": 404, "body": "no such thing", "body_encoding": "text"}


@pytest.mark.parametrize("expected", [404, [200, 404], "4xx"])
def test_a_status_that_is_expected_is_a_success(bench: Bench, slot: Slot, start: Start, expected: Any) -> None:
    server = start(answering(status=404))
    job_id = bench.submit(server, expected_status=expected)

    bench.attempt(slot, server)

    assert bench.job(job_id).state is JobState.COMPLETED


def test_the_receivers_wish_to_wait_is_heeded(bench: Bench, slot: Slot, start: Start) -> None:
    server = start(answering(status=429, retry_after="120"))
    job_id = bench.submit(server)

    bench.attempt(slot, server)

    job = bench.job(job_id)
    assert job.state is JobState.RETRY_WAIT
    assert job.error is not None
    assert job.error["code"] == "http.status_unexpected"
    assert job.run_after is not None
    assert timedelta(seconds=100) < job.run_after - job.updated_at <= timedelta(seconds=121)


def test_every_attempt_shows_the_same_idempotency_key(bench: Bench, slot: Slot, start: Start) -> None:
    statuses = iter([503, 500, 200])

    def answer(handler: BaseHTTPRequestHandler) -> None:
        answering(status=next(statuses))(handler)

    server = start(answer)
    job_id = bench.submit(server, method="POST")

    for _ in range(3):
        bench.attempt(slot, server)
        bench.admit()

    assert bench.job(job_id).state is JobState.COMPLETED
    assert [seen.headers["idempotency-key"] for seen in server.seen] == [str(job_id)] * 3


def test_an_idempotency_key_of_ones_own_is_kept(bench: Bench, slot: Slot, start: Start) -> None:
    server = start(answering())
    bench.submit(server, headers={"idempotency-key": "mine"})

    bench.attempt(slot, server)

    assert server.seen[0].headers["idempotency-key"] == "mine"


def test_a_job_that_is_cancelled_while_it_waits_for_an_answer_ends_at_once(
    bench: Bench, slot: Slot, start: Start
) -> None:
    called, released = threading.Event(), threading.Event()

    def silence(handler: BaseHTTPRequestHandler) -> None:
        called.set()
        released.wait(300)

    def cancel(slot: Slot) -> None:
        called.wait(30)
        for context in slot.holds.values():
            context.stop(JobCancelled("user"))

    server = start(silence)
    job_id = bench.submit(server, timeout_s=300.0)

    bench.attempt(slot, server, meanwhile=cancel)

    released.set()
    assert bench.job(job_id).state is JobState.CANCELLED


def test_a_job_whose_worker_shuts_down_while_bytes_drip_is_handed_back(bench: Bench, slot: Slot, start: Start) -> None:
    called = threading.Event()
    drip = endless(b"x", 0.02)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        called.set()
        drip(handler)

    def drain(slot: Slot) -> None:
        called.wait(30)
        for context in slot.holds.values():
            context.stop(HandBack())

    server = start(answer)
    job_id = bench.submit(server, timeout_s=300.0)

    bench.attempt(slot, server, meanwhile=drain)

    job = bench.job(job_id)
    assert job.attempts == 0
    assert job.state in {JobState.OPEN, JobState.QUEUED}


def test_a_call_that_takes_too_long_is_tried_again(bench: Bench, slot: Slot, start: Start) -> None:
    server = start(endless(b"x", 0.02))
    job_id = bench.submit(server, timeout_s=0.3)

    bench.attempt(slot, server)

    job = bench.job(job_id)
    assert job.error is not None
    assert (job.state, job.error["code"]) == (JobState.RETRY_WAIT, "http.timeout")


@pytest.mark.parametrize("host", ["127.0.0.2", "169.254.169.254", "[::1]", "[::127.0.0.1]"])
def test_an_address_that_is_not_public_fails_the_job_at_its_first_attempt(
    bench: Bench, slot: Slot, start: Start, host: str
) -> None:
    server = start(answering(b"SECRET"))
    job_id = bench.submit(server, url=server.url(host=host), retry=without_delay())

    bench.attempt(slot, server)

    job = bench.job(job_id)
    assert job.error is not None
    assert (job.state, job.attempts, job.error["code"]) == (JobState.FAILED, 1, "ERR_URL_FORBIDDEN")
    assert server.seen == []


def test_a_body_that_postgres_cannot_hold_as_text_comes_in_base64(bench: Bench, slot: Slot, start: Start) -> None:
    server = start(answering(b"a\0b", content_type="text/plain"))
    job_id = bench.submit(server)

    bench.attempt(slot, server)

    result = bench.job(job_id).result
    assert result is not None
    assert (base64.b64decode(result["body"]), result["body_encoding"]) == (b"a\0b", "base64")


def test_a_failing_answer_that_postgres_cannot_hold_is_told_all_the_same(
    bench: Bench, slot: Slot, start: Start
) -> None:
    server = start(answering(b"a\0b", 400))
    job_id = bench.submit(server)

    bench.attempt(slot, server)

    error = bench.job(job_id).error
    assert error is not None
    assert error["data"]["body_encoding"] == "base64"


def test_of_an_endless_answer_the_beginning_is_kept(bench: Bench, slot: Slot, start: Start) -> None:
    server = start(endless(b"x" * 10_000))
    job_id = bench.submit(server, max_response_bytes=1_000)

    bench.attempt(slot, server)

    result = bench.job(job_id).result
    assert result is not None
    assert (result["body"], result["body_truncated"]) == ("x" * 1_000, True)


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"url": "ftp://me:secret@example.com/"}, "/config/url"),
        ({"url": "http://2130706433/secret"}, "/config/url"),
        ({"url": "https://example.com/", "headers": {"Host": "secret"}}, "/config/headers/Host"),
        ({"url": "https://example.com/", "headers": {"A/B": "secret"}}, "/config/headers/A~1B"),
        ({"url": "https://example.com/", "headers": {"A": "secret\r\nB: c"}}, "/config/headers/A"),
        ({"url": "https://example.com/", "headers": {"A": "1", "a": "secret"}}, "/config/headers/a"),
        ({"url": "https://example.com/", "expected_status": "2yy"}, "/config/expected_status"),
        ({"url": "https://example.com/", "expected_status": True}, "/config/expected_status"),
        ({"url": "https://example.com/", "expected_status": []}, "/config/expected_status"),
        ({"url": "https://example.com/", "method": "TRACE"}, "/config/method"),
        ({"url": "https://example.com/", "timeout_s": 0}, "/config/timeout_s"),
        ({}, "/config/url"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(member: Client, config: dict[str, Any], pointer: str) -> None:
    answer = member.post("/v1/jobs", {"type": "http_request", "config": config})

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert "secret" not in answer.text


def test_a_request_is_accepted_without_a_look_at_its_addresses(member: Client) -> None:
    answer = member.post("/v1/jobs", {"type": "http_request", "config": {"url": "https://nowhere.invalid/"}})

    assert answer.status_code == 202
    assert answer.json["queue"] == "http"


def test_a_check_names_no_value(bench: Bench, start: Start) -> None:
    server = start(answering())

    with pytest.raises(InvalidRequestError) as caught:
        bench.submit(server, headers={"Authorization": "Bearer secret\n"})

    assert "secret" not in f"{caught.value.detail} {caught.value.problems}"
