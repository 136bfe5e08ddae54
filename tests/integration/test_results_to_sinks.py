"""What the payloads of a batch came to goes to a sink: whole, once, and to nobody who refuses us twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import UUID

import jsonschema
import pytest
from sqlalchemy import text

from app.domain.clock import SystemClock
from app.domain.errors import HaulierError, JobError, PermanentError, TransientError
from app.domain.jobs import Job, Priority
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectRef
from app.persistence import admission, jobs
from app.persistence import sinks as rows
from app.persistence.sessions import Sessions
from app.security.master_keys import MasterKeys
from app.security.signed_posts import headers_of
from app.storage.multipart import S3Upload
from app.storage.s3 import S3Store
from config.settings import Settings
from tasks.context import RunContext
from tasks.types.deliver_results import JOB_TYPE
from tests.factories import a_slot
from tests.integration.conftest import Client
from tests.integration.families import Installation
from tests.integration.their_bucket import THEIRS, place, with_sinks
from tests.loopback import Loopback, servers

CANARY = "canary-secret-0123456789"
LAKE = {"name": "lake", "key": "{date}/{job_id}.ndjson"}
HOOK = {"name": "hook"}


class Receiver:
    """A server that answers ``statuses`` one after another, then 204."""

    def __init__(self, start: Callable[..., Loopback]) -> None:
        self.statuses: list[int] = []
        self.server = start(self._answer)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(self.statuses.pop(0) if self.statuses else 204)
        request.send_header("Content-Length", "0")
        request.end_headers()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(seen.body) for seen in self.server.seen]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with servers() as start:
        yield Receiver(start)


@pytest.fixture
def settings(settings: Settings, receiver: Receiver) -> Settings:
    return with_sinks(settings, receiver.server.port)


class Delivering(Installation):
    """An installation whose deliveries are run in the test."""

    def __init__(self, sessions: Sessions, settings: Settings, client: Client) -> None:
        super().__init__(sessions)
        self.settings, self.client, self.objects = settings, client, S3Store(settings)
        self.data_slot = a_slot(sessions, "data")

    def batch(self, sink: dict[str, Any], *, payloads: int = 3, **options: Any) -> UUID:
        given = [{"type": "echo", "config": {"value": number}} for number in range(payloads)]
        answer = self.client.post("/v1/batches", {"payloads": given, "sink": sink, **options})
        assert answer.status_code == 202, answer.get_json()
        return UUID(answer.get_json()["id"])

    def held(self) -> Job:
        """The next delivery, as a worker holds it."""
        self.tick()
        with self.sessions.begin() as session:
            admission.admit(session, "data", Priority.NORMAL, bound=1000)
        (job,) = self.runs.claim("data", self.data_slot, most=1, oldest=False)
        return job

    def again(self, job: Job) -> Job:
        """A job as the next worker holds it, after the one that held it was killed."""
        with self.sessions.begin() as session:
            session.execute(text("UPDATE jobs SET fence = fence + 1 WHERE id = :id"), {"id": job.id})
            return jobs.get(session, job.tenant, job.id)

    def run(self, job: Job) -> None:
        """Run a held delivery to its end, or to what it raises."""
        context = RunContext(
            job, settings=self.settings, sessions=self.sessions, objects=self.objects, clock=SystemClock()
        )
        result = JOB_TYPE.run(context, JOB_TYPE.config.model_validate(job.config))
        context.flush()
        assert result is not None
        self.runs.complete(job, result)

    def deliver(self) -> None:
        """Run the next delivery as a worker does."""
        job = self.held()
        try:
            self.run(job)
        except HaulierError as error:
            self.runs.fail(job, error)

    def deliveries(self, batch: UUID) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.client.get(f"/v1/jobs/{batch}/deliveries").get_json()["items"]
        return items

    def theirs(self) -> dict[str, list[dict[str, Any]]]:
        """The lines of every object in their bucket, by key."""
        found = {}
        for key in [key for key, _ in self.objects.list(THEIRS, "")]:
            with self.objects.open(ObjectRef(THEIRS, key)) as reader:
                found[key] = [json.loads(line) for line in reader.read().splitlines()]
        return found

    def unfinished(self) -> list[str]:
        return [upload.upload_id for upload in self.objects.unfinished(THEIRS)]


@pytest.fixture
def installation(sessions: Sessions, settings: Settings, admin: Client, receiver: Receiver) -> Iterator[Delivering]:
    assert admin.put("/v1/sinks/lake", place(settings)).status_code == 200
    assert admin.put("/v1/sinks/hook", {"url": receiver.server.url("/in?token=x")}).status_code == 200
    made = Delivering(sessions, settings, admin)
    yield made
    made.objects.delete([ObjectRef(THEIRS, key) for key, _ in made.objects.list(THEIRS, "")])


@pytest.mark.feature("S3-02", "S3-06", "S3-45")
def test_what_each_run_of_a_schedule_came_to_reaches_the_bucket_in_the_published_format(
    installation: Delivering, admin: Client, web_app: Any
) -> None:
    template = {"type": "batch", "payloads": [{"type": "echo", "name": "n"}, {"type": "echo"}], "sink": LAKE}
    body = {"name": "hourly", "template": template, "rules": {"intervals": [{"every": "1h"}]}}
    schedule = admin.post("/v1/schedules", body).get_json()
    batch = admin.post(f"/v1/schedules/{schedule['id']}:trigger").get_json()

    installation.tick()
    first, second = installation.claim()
    installation.finish(first)
    installation.fail(second)
    installation.deliver()

    ((key, lines),) = installation.theirs().items()
    assert schedule["template"]["sink"] == LAKE
    assert key == f"from/haulier/{batch['created_at'][:10]}/{batch['id']}.ndjson"
    document = web_app.test_client().get("/openapi.json").get_json()
    for line in lines:
        jsonschema.validate(line, document["components"]["schemas"]["ResultLine"])
    said = ("tenant", "schedule_id", "batch_id", "id", "number", "name", "type", "state", "attempts")
    assert [[line[word] for word in said] for line in lines] == [
        ["default", schedule["id"], batch["id"], str(first.id), 0, "n", "echo", "completed", 1],
        ["default", schedule["id"], batch["id"], str(second.id), 1, None, "echo", "failed", 1],
    ]
    assert (lines[0]["result"], lines[1]["error"]["code"]) == ({}, "test.no")
    (delivery,) = installation.deliveries(UUID(batch["id"]))
    assert (delivery["state"], delivery["result"]["rows"], delivery["result"]["s3_key"]) == ("completed", 2, key)


def test_a_delivery_is_made_with_its_batch_and_begins_when_that_is_over(
    installation: Delivering, stranger: Client
) -> None:
    batch = installation.batch(LAKE)

    before = installation.deliveries(batch)
    installation.work_off()
    after = installation.deliveries(batch)

    assert [(one["state"], one["needs_left"]) for one in before] == [("blocked", 1)]
    assert [one["id"] for one in after] == [before[0]["id"]]
    assert installation.state(batch) is JobState.COMPLETED
    assert after[0]["state"] in {"open", "queued"}
    assert stranger.get(f"/v1/jobs/{batch}/deliveries").status_code == 404


def test_a_cancelled_batch_is_delivered_as_it_is(installation: Delivering, admin: Client) -> None:
    batch = installation.batch(LAKE)

    admin.post(f"/v1/jobs/{batch}:cancel")
    installation.deliver()

    (lines,) = installation.theirs().values()
    assert [line["state"] for line in lines] == ["cancelled"] * 3


def test_a_batch_that_is_opened_again_is_delivered_again_under_the_same_name(
    installation: Delivering, admin: Client
) -> None:
    batch = installation.batch({"name": "lake"}, payloads=1)
    installation.tick()
    installation.fail(*installation.claim())
    installation.deliver()
    failed = installation.theirs()

    admin.post(f"/v1/jobs/{batch}:retry", {})
    installation.work_off()
    installation.deliver()

    assert [line["state"] for line in failed[f"from/haulier/{batch}.ndjson"]] == ["failed"]
    assert {key: [line["state"] for line in lines] for key, lines in installation.theirs().items()} == {
        f"from/haulier/{batch}.ndjson": ["completed"]
    }
    assert [one["state"] for one in installation.deliveries(batch)] == ["completed", "completed"]


def test_a_delivery_that_meets_a_batch_opened_again_leaves_it_to_the_next_end(
    installation: Delivering, admin: Client
) -> None:
    batch = installation.batch(LAKE, payloads=1)
    installation.tick()
    installation.fail(*installation.claim())
    held = installation.held()
    with installation.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'open' WHERE id = :id"), {"id": batch})

    installation.run(held)

    assert installation.theirs() == {}
    assert [(one["state"], one["outcome"]) for one in installation.deliveries(batch)] == [
        ("completed", "empty"),
        ("blocked", None),
    ]


@pytest.mark.parametrize("dies_at", ["write", "complete"])
def test_a_killed_delivery_leaves_one_whole_object_and_no_parts(
    installation: Delivering, dies_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.files._WHOLE_BYTES", 1)
    monkeypatch.setattr("tasks.result_lines._BYTES_AT_ONCE", 1)
    batch = installation.batch(LAKE, payloads=5)
    installation.work_off()
    held = installation.held()
    _die_at(monkeypatch, dies_at)
    with pytest.raises(KeyboardInterrupt):
        installation.run(held)
    left = (installation.unfinished(), installation.theirs())
    monkeypatch.undo()

    installation.run(installation.again(held))

    (lines,) = installation.theirs().values()
    assert len(left[0]) + len(left[1]) == 1
    assert [line["number"] for line in lines] == [0, 1, 2, 3, 4]
    assert installation.unfinished() == []
    assert [one["result"]["rows"] for one in installation.deliveries(batch)] == [5]


def _die_at(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Have the process end after a step of an upload: nothing of what follows is done, clean-up neither."""
    done = getattr(S3Upload, step)

    def and_die(*given: Any) -> None:
        done(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(S3Upload, step, and_die)
    monkeypatch.setattr(S3Upload, "abort", lambda _: None)


@pytest.mark.feature("S3-43")
def test_credentials_that_are_wrong_later_fail_the_delivery_at_once_and_are_told_to_nobody(
    installation: Delivering, settings: Settings
) -> None:
    batch = installation.batch(LAKE)
    opens = {"access_key_id": str(settings.s3_access_key_id), "secret_access_key": CANARY}
    sealed = MasterKeys(settings.master_keys).seal(json.dumps(opens).encode(), context="sink/default/lake")
    with installation.sessions.begin() as session:
        rows.put(
            session,
            "default",
            "lake",
            sealed=sealed,
            created_by="test",
            bucket=THEIRS,
            region="us-east-1",
            endpoint=settings.s3_endpoint,
            prefix="",
        )
    installation.work_off()

    held = installation.held()
    with pytest.raises(PermanentError) as caught:
        installation.run(held)
    installation.runs.fail(held, caught.value)

    answer = installation.client.get(f"/v1/jobs/{batch}/deliveries")
    (delivery,) = answer.get_json()["items"]
    assert not JOB_TYPE.retry.takes(caught.value)
    assert (delivery["state"], delivery["error"]["code"]) == ("failed", "sink.refused")
    assert CANARY not in answer.text + str(caught.value)


@pytest.mark.feature("S3-41", "S3-02")
def test_each_result_is_posted_signed_and_again_after_a_failure_of_the_server(
    installation: Delivering, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(RunContext, "wait", lambda _, seconds: waited.append(seconds))
    receiver.statuses = [204, 503, 204, 422]
    secret = installation.client.put("/v1/sinks/hook", {"url": receiver.server.url("/in")}).get_json()["secret"]
    batch = installation.batch(HOOK)
    installation.work_off()

    installation.deliver()

    (delivery,) = installation.deliveries(batch)
    assert [line["number"] for line in receiver.lines] == [0, 1, 1, 2]
    assert waited == [1.0]
    first, second, third, _ = receiver.server.seen
    assert second.headers["webhook-id"] == third.headers["webhook-id"] != first.headers["webhook-id"]
    assert "webhook-signature" in first.headers
    assert secret not in str(delivery)
    assert (delivery["outcome"], delivery["error_count"]) == ("partial", 1)
    assert {word: delivery["result"][word] for word in ("taken", "refused")} == {"taken": 2, "refused": 1}
    listed = installation.client.get(f"/v1/jobs/{delivery['id']}/failed-records").get_json()["items"]
    assert [(one["line"], one["code"]) for one in listed] == [(2, "sink.result_refused")]


def test_a_killed_delivery_posts_on_behind_the_last_result_that_was_answered(
    installation: Delivering, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunContext, "wait", lambda *_: None)
    receiver.statuses = [204, 503, 503, 503]
    installation.batch(HOOK)
    installation.work_off()
    held = installation.held()
    with pytest.raises(TransientError):
        installation.run(held)

    installation.run(installation.again(held))

    assert [line["number"] for line in receiver.lines] == [0, 1, 1, 1, 1, 2]


def test_a_receiver_that_refuses_us_is_asked_once(installation: Delivering, receiver: Receiver) -> None:
    receiver.statuses = [401, 302]
    batches = [installation.batch(HOOK), installation.batch(HOOK)]
    installation.work_off()

    installation.deliver()
    installation.deliver()

    ended = [one for batch in batches for one in installation.deliveries(batch)]
    assert [(one["state"], one["error"]["code"]) for one in ended] == [("failed", "sink.refused")] * 2
    assert len(receiver.lines) == 2


def test_a_clone_of_a_batch_has_its_sink(installation: Delivering, admin: Client) -> None:
    batch = installation.batch(LAKE)

    clone = admin.post(f"/v1/jobs/{batch}:clone").get_json()

    assert clone["config"]["sink"] == LAKE
    assert len(installation.deliveries(UUID(clone["id"]))) == 1


def test_a_sink_that_cannot_take_results_is_refused_with_its_place(installation: Delivering, admin: Client) -> None:
    faulty: list[tuple[dict[str, Any], str]] = [
        ({"name": "gone"}, "/sink/name"),
        ({"name": "lake", "key": "{color}"}, "/sink/key"),
        ({"name": "hook", "key": "x"}, "/sink/key"),
        ({"provider": "gone"}, "/sink/provider"),
        ({}, "/sink"),
        ({"name": "lake", "config": {"a": 1}}, "/sink"),
    ]

    answers = [admin.post("/v1/batches", {"payloads": [{"type": "echo"}], "sink": sink}) for sink, _ in faulty]

    assert [answer.status_code for answer in answers] == [422] * len(faulty)
    assert [answer.get_json()["errors"][0]["pointer"] for answer in answers] == [pointer for _, pointer in faulty]


def test_results_of_a_job_that_is_not_over_are_not_delivered(installation: Delivering, admin: Client) -> None:
    batch = admin.post("/v1/batches", {"payloads": [{"type": "echo"}]}).get_json()["id"]
    config = {"job": batch, "sink": {"name": "lake"}}
    assert admin.post("/v1/jobs", {"type": "deliver_results", "config": config}).status_code == 202

    with pytest.raises(JobError) as caught:
        installation.run(installation.held())

    assert caught.value.code == "results.not_over"
    assert installation.deliveries(UUID(batch)) == []


def test_the_url_of_a_receiver_is_never_shown_again(installation: Delivering, admin: Client) -> None:
    shown = [admin.get("/v1/sinks").text, admin.get("/v1/sinks/hook").text, admin.get("/v1/changes").text]

    assert not any("token" in one or "whsec" in one for one in shown)
    assert admin.get("/v1/sinks/hook").get_json()["origin"].startswith("http://127.0.0.1:")


def test_a_receiver_that_cannot_be_posted_to_is_not_stored(admin: Client) -> None:
    faulty: list[tuple[dict[str, Any], str]] = [
        ({"url": "http://10.0.0.1/"}, "/url"),
        ({"url": "ftp://example.com/"}, "/url"),
        ({"url": "http://127.0.0.1:8080/", "secret": "whsec_eHg="}, "/secret"),
        ({"url": "http://127.0.0.1:8080/", "bucket": "abc"}, "/bucket"),
        ({"bucket": "abc", "access_key_id": "a"}, "/secret_access_key"),
    ]

    answers = [admin.put("/v1/sinks/other", body) for body, _ in faulty]

    assert [answer.status_code for answer in answers] == [422] * len(faulty)
    assert [answer.get_json()["errors"][0]["pointer"] for answer in answers] == [pointer for _, pointer in faulty]


def test_a_signature_is_that_of_standard_webhooks() -> None:
    at = datetime.fromtimestamp(1_614_265_330, UTC)
    headers = headers_of(
        b'{"test": 2432232314}',
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        at=at,
        secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
