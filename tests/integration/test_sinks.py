"""Sinks: exports into a bucket of the tenant's own, whose credentials nobody ever sees again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from app.bootstrap import Services
from app.domain.errors import PermanentError, TransientError
from app.domain.ports import ObjectRef
from app.domain.retry import RetryPolicy
from app.domain.sinks import Credentials
from app.domain.tables import Column, ColumnType, Table
from app.persistence import sinks as rows
from app.persistence.sessions import Sessions
from app.security.master_keys import MasterKeys
from app.services.runs import describe
from app.services.tables import Tables
from app.storage.s3 import S3Store
from app.storage.sinks import SinkStore
from config.settings import Settings
from tests.integration.conftest import Client
from tests.integration.exports import Exporting
from tests.integration.their_bucket import THEIRS, place, with_sinks

CANARY = "canary-secret-0123456789"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return with_sinks(settings)


@pytest.fixture
def exporting(sessions: Sessions, settings: Settings) -> Exporting:
    Tables(sessions).declare("default", Table("pairs", (Column("a", ColumnType.BIGINT),), ("a",)))
    with sessions.begin() as session:
        session.execute(text("INSERT INTO t_default.pairs (a) SELECT generate_series(1, 100)"))
    return Exporting(settings, sessions, S3Store(settings))


def in_theirs(exporting: Exporting) -> list[str]:
    return [key for key, _ in exporting.objects.list(THEIRS, "")]


def everything_stored(sessions: Sessions) -> str:
    """Every row of every table as text."""
    with sessions.begin() as session:
        names = session.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
        return "\n".join(
            str(session.execute(text(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {name} AS t")).scalar_one())
            for name in names
        )


@pytest.mark.feature("S3-42", "S3-43", "S3-44")
def test_an_export_goes_to_the_named_bucket_under_its_key_and_the_credentials_are_never_seen_again(
    exporting: Exporting, admin: Client, member: Client, settings: Settings, sessions: Sessions
) -> None:
    ours = exporting.export("pairs")
    before = in_theirs(exporting)

    put = admin.put("/v1/sinks/lake", place(settings))
    result = exporting.export("pairs", key="{table}/{job_id}", destination={"sink": "lake"})

    job_id = exporting.jobs[-1].id
    assert put.status_code == 200, put.get_json()
    assert before == []
    assert in_theirs(exporting) == [f"from/haulier/pairs/{job_id}.csv{end}" for end in ("", ".manifest.json")]
    with exporting.objects.open(ObjectRef(THEIRS, result.data["s3_key"])) as reader:
        assert reader.read() == exporting.body(ours)
    assert (result.data["sink"], result.data["s3_bucket"]) == ("lake", THEIRS)
    kinds = {one["kind"] for one in member.get(f"/v1/jobs/{job_id}/artifacts").get_json()["items"]}
    assert kinds == {"log", "report"}
    secret = place(settings)["secret_access_key"]
    shown = [put, member.get("/v1/sinks"), member.get("/v1/sinks/lake"), member.get(f"/v1/jobs/{job_id}")]
    assert all(secret not in answer.text and "access_key" not in answer.text for answer in shown)
    kept = everything_stored(sessions)
    assert secret not in kept
    assert secret.encode().hex() not in kept
    exporting.objects.delete([ObjectRef(THEIRS, key) for key in in_theirs(exporting)])


@pytest.mark.feature("S3-43")
@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"secret_access_key": CANARY}, "/bucket", "sink.refused"),
        ({"bucket": "no-such-bucket"}, "/bucket", "sink.refused"),
        ({"endpoint": "http://10.0.0.1:8080"}, "/endpoint", "ERR_URL_FORBIDDEN"),
        ({"endpoint": "http://127.0.0.1:1"}, "/endpoint", "ERR_URL_FORBIDDEN"),
        ({"prefix": "../up"}, "/prefix", "request.invalid"),
        ({"region": "evil.example.com/"}, "/region", "request.invalid"),
    ],
)
def test_a_sink_that_cannot_be_written_is_not_stored(
    admin: Client, settings: Settings, sessions: Sessions, changes: dict[str, Any], pointer: str, code: str
) -> None:
    answer = admin.put("/v1/sinks/lake", place(settings, **changes))

    assert (answer.status_code, answer.get_json()["code"]) == (422, code)
    assert [fault["pointer"] for fault in answer.get_json()["errors"]] == [pointer]
    assert CANARY not in answer.text
    assert admin.get("/v1/sinks").get_json()["items"] == []
    assert CANARY not in everything_stored(sessions)


def test_sinks_are_an_admins_and_their_tenants_alone(
    admin: Client, member: Client, stranger: Client, exporting: Exporting, settings: Settings
) -> None:
    refused = member.put("/v1/sinks/lake", place(settings))
    admin.put("/v1/sinks/lake", place(settings))
    config = {"table": "contacts", "destination": {"sink": "lake"}}

    admin.put("/v1/sinks/lake", place(settings, prefix="elsewhere"))
    changed = [(one["before"] or {}).get("prefix") for one in admin.get("/v1/changes").get_json()["items"]]
    foreign = [stranger.get("/v1/sinks/lake"), stranger.delete("/v1/sinks/lake")]
    submitted = stranger.post("/v1/jobs", {"type": "export", "config": config})
    gone = [admin.delete("/v1/sinks/lake"), admin.get("/v1/sinks/lake")]

    assert refused.status_code == 403
    assert changed == ["from/haulier", None]
    assert [answer.status_code for answer in foreign] == [404, 404]
    assert (submitted.status_code, submitted.get_json()["errors"][0]["pointer"]) == (422, "/config/destination/sink")
    assert [answer.status_code for answer in gone] == [204, 404]
    assert exporting.settings is settings


@pytest.mark.feature("S3-43")
def test_credentials_that_are_wrong_later_fail_the_job_for_good_and_are_told_to_nobody(
    exporting: Exporting, settings: Settings, sessions: Sessions
) -> None:
    sealed = MasterKeys(settings.master_keys).seal(
        json.dumps({"access_key_id": str(settings.s3_access_key_id), "secret_access_key": CANARY}).encode(),
        context="sink/default/lake",
    )
    where: dict[str, Any] = {"bucket": THEIRS, "region": "us-east-1", "endpoint": settings.s3_endpoint, "prefix": ""}
    with sessions.begin() as session:
        rows.put(session, "default", "lake", sealed=sealed, created_by="test", **where)

    with pytest.raises(PermanentError) as caught:
        exporting.export("pairs", destination={"sink": "lake"})

    assert caught.value.code == "sink.refused"
    assert not RetryPolicy(maximum_attempts=3, transient_only=False).takes(caught.value)
    assert CANARY not in json.dumps(describe(caught.value, exporting.jobs[-1]))
    assert CANARY not in repr(Credentials("a", CANARY))


def test_a_name_that_leads_elsewhere_later_is_not_dialled(settings: Settings) -> None:
    secret = place(settings)
    store = SinkStore(
        settings,
        settings.s3_endpoint,
        "us-east-1",
        Credentials(secret["access_key_id"], secret["secret_access_key"]),
    )
    store.put(ObjectRef(THEIRS, "probe"), b"x", content_type="text/plain")
    store.delete([ObjectRef(THEIRS, "probe")])

    closed = SinkStore(settings, settings.s3_endpoint, "us-east-1", Credentials("a", "b"))
    closed._outgoing._private_networks = ()

    with pytest.raises(TransientError, match="did not answer"):
        closed.head(ObjectRef(THEIRS, "probe"))


def test_without_a_master_key_no_sink_is_stored(web_services: Services, settings: Settings) -> None:
    from app.bootstrap import build_services

    services = build_services(settings.model_copy(update={"master_key": None}), application_name="x", pool_size=2)
    taken = {name: value for name, value in place(settings).items() if "access" not in name}

    with pytest.raises(Exception, match="HAULIER_MASTER_KEY"):
        services.sinks.put(
            "default", "lake", region="us-east-1", credentials=Credentials("a", "b"), actor="test", **taken
        )

    services.sessions.kw["bind"].dispose()
    assert web_services.sinks.of_tenant("default") == []
