"""The files that every job has: its log, its report, its failed rows; and small results inline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.domain.errors import JobError
from app.domain.job_types import Result
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from app.storage.s3 import S3Store
from config.settings import Settings
from tasks import log_lines
from tasks.context import RunContext
from tests.integration.conftest import Client
from tests.integration.exports import Exporting
from tests.integration.worker import Worker, attempt


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"secret_key": SecretStr("s" * 32)})


@pytest.fixture
def worker(sessions: Sessions, settings: Settings, objects: ObjectStore) -> Iterator[Worker]:
    worker = Worker(sessions, settings, objects)
    worker.heart.start()
    yield worker
    worker.heart.stop()


def lines(client: Client, job_id: UUID, after: str = "0.0.0") -> list[dict[str, Any]]:
    answer = client.get(f"/v1/jobs/{job_id}/log", query_string={"after": after})
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["Log-Position"] == (found[-1]["position"] if found else after)
    return found


@pytest.mark.feature("S2-03", "S2-70")
def test_a_jobs_log_can_be_read_and_followed_while_it_runs_and_after(
    worker: Worker, member: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[dict[str, Any]]] = []
    monkeypatch.setattr("tasks.context._WRITE_EVERY_S", 0.0)

    def talk(job: RunContext) -> None:
        job.log.info("step.begun", extra={"rows": 5, "what": {"a": 1}})
        seen.append(lines(member, job.id))
        job.log.warning("step %s", "two\0")
        seen.append(lines(member, job.id, after=seen[0][-1]["position"]))

    job_id = worker.submit(talk)
    attempt(worker)

    before, since = seen
    assert [line["event"] for line in before][-1] == "step.begun"
    assert (before[-1]["rows"], before[-1]["what"], before[-1]["level"]) == (5, "{'a': 1}", "info")
    assert [line["event"] for line in since] == ["step two\\0"]
    whole = lines(member, job_id)
    assert whole[: len(before)] == before
    assert [line["event"] for line in whole[-3:]] == ["step.begun", "step two\\0", "job.completed"]
    assert [line["timestamp"] for line in whole] == sorted(line["timestamp"] for line in whole)
    assert lines(member, job_id, after=whole[-1]["position"]) == []


def test_a_log_is_capped_and_says_what_it_left_out(
    worker: Worker, member: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "MOST_LINES", 3)
    job_id = worker.submit(lambda job: [job.log.info(f"line.{number}") for number in range(10)] and None)

    attempt(worker)

    said = [line["event"] for line in lines(member, job_id) if not line["event"].startswith("job.")]
    assert said == ["line.0", "line.1", "line.2", "log.truncated"]


def _fails_with_rows(job: RunContext) -> Result:
    for number in range(3):
        job.fail_record(number, code="mine.bad", message="expected a, got b", raw="b")
    job.log.error("it.failed")
    raise JobError("no more", code="mine.broke")


@pytest.mark.feature("S2-03", "S2-68", "S2-80")
def test_from_a_failed_job_its_log_report_and_failed_rows_are_reached_by_links_without_a_key(
    worker: Worker, member: Client, nobody: Client
) -> None:
    job_id = worker.submit(_fails_with_rows)
    attempt(worker)

    files = {one["kind"]: one for one in member.get(f"/v1/jobs/{job_id}/artifacts").get_json()["items"]}

    assert set(files) == {"log", "report", "failed_rows"}
    links = {kind: urlsplit(one["url"]) for kind, one in files.items()}
    got = {kind: nobody.get(f"{link.path}?{link.query}") for kind, link in links.items()}
    assert {kind: answer.status_code for kind, answer in got.items()} == dict.fromkeys(files, 200)
    assert "it.failed" in got["log"].text
    assert got["failed_rows"].text.count("mine.bad") == files["failed_rows"]["rows"] == 3
    report = got["report"].get_json()
    assert (report["job"]["state"], report["books"]["refused"]) == ("failed", 3)
    assert [error["code"] for error in report["errors"]] == ["mine.broke"]
    assert [(group["code"], group["count"]) for group in report["failed_rows"]] == [("mine.bad", 3)]
    moved = nobody.get(f"{links['log'].path}?{links['report'].query}")
    assert (moved.status_code, moved.get_json()["code"]) == (403, "link.invalid")


@pytest.mark.feature("S2-66")
@pytest.mark.parametrize(
    ("config", "limit", "inline"),
    [
        ({"format": "ndjson"}, 65_536, '{"a":1}\n{"a":2}\n'),
        ({"format": "csv", "encrypted": True}, 65_536, "a\n1\n2\n"),
        ({"format": "csv"}, 5, None),
        ({"format": "csv", "compression": "gzip"}, 65_536, None),
        ({"format": "csv", "max_rows_per_part": 1}, 65_536, None),
    ],
)
def test_a_small_export_stands_in_the_result_and_any_other_is_behind_its_link(
    sessions: Sessions, settings: Settings, config: dict[str, Any], limit: int, inline: str | None
) -> None:
    from app.bootstrap import build_services
    from app.domain.access import Role
    from app.factory import create_app

    Tables(sessions).declare("default", Table("pairs", (Column("a", ColumnType.BIGINT),), ("a",)))
    with sessions.begin() as session:
        session.execute(text("INSERT INTO t_default.pairs (a) VALUES (1), (2)"))
    ours = settings.model_copy(update={"inline_result_bytes": limit, "master_key": SecretStr("m" * 32)})
    services = build_services(ours, application_name="tests inline", pool_size=4)
    member = Client(create_app(ours, services), services.keys.create("default", Role.MEMBER, created_by="tests")[0])
    exporting = Exporting(ours, sessions, S3Store(ours))
    exporting.export(
        "pairs", vql={"order_by": [{"order_by": "a"}]} if "max_rows_per_part" not in config else {}, **config
    )
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'completed', finished_at = now()"))

    result = member.get(f"/v1/jobs/{exporting.jobs[-1].id}/result").get_json()

    services.sessions.kw["bind"].dispose()
    assert result["inline"] == inline
    assert result["file_url"] is not None
