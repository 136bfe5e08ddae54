"""Lines encrypted one by one: who has the key, the customer's id and a line's place reads it, and nobody else."""

from __future__ import annotations

import io
import json
import os
import zipfile
from base64 import b64decode, b64encode

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr
from sqlalchemy import text

from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from app.storage.s3 import S3Store
from config.settings import Settings
from tests.integration.conftest import Client
from tests.integration.exports import Exporting

KEY = os.urandom(32)
ASKED = {"key": "shared-1", "customer_id": "c:7"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"master_key": SecretStr("m" * 32)})


@pytest.fixture
def exporting(sessions: Sessions, settings: Settings) -> Exporting:
    Tables(sessions).declare("default", Table("pairs", (Column("a", ColumnType.BIGINT),), ("a",)))
    with sessions.begin() as session:
        session.execute(text("INSERT INTO t_default.pairs (a) SELECT generate_series(1, 300)"))
    return Exporting(settings, sessions, S3Store(settings))


def opened(line: bytes, row: int, customer_id: str = "c:7") -> bytes:
    key_id, iv, sealed = json.loads(line)["encrypted_data"].split(":")
    assert key_id == "shared-1"
    return AESGCM(KEY).decrypt(b64decode(iv), b64decode(sealed), f"stream:{customer_id}:{row}".encode())


@pytest.mark.parametrize("compression", ["zip", "none"])
def test_each_line_is_read_with_the_shared_key_at_its_place(
    exporting: Exporting, admin: Client, compression: str
) -> None:
    kept = admin.post("/v1/line-keys", {"name": "shared-1", "key": b64encode(KEY).decode()})
    vql = {"order_by": [{"order_by": "a"}]}

    result = exporting.export("pairs", vql=vql, format="ndjson", compression=compression, encrypt_lines=ASKED)

    body = exporting.body(result)
    if compression == "zip":
        packed = zipfile.ZipFile(io.BytesIO(body))
        assert packed.namelist() == [f"{exporting.jobs[-1].id}.ndjson"]
        assert result.data["s3_key"].endswith(".ndjson.zip")
        body = packed.read(packed.namelist()[0])
    lines = body.splitlines()
    assert kept.status_code == 201
    assert [json.loads(opened(line, row))["a"] for row, line in enumerate(lines)] == [*range(1, 301)]
    assert len({line[:40] for line in lines}) == 300
    for row, customer in ((1, "c:7"), (0, "c:8")):
        with pytest.raises(InvalidTag):
            opened(lines[0], row, customer)
    assert exporting.manifest(result)["line_encryption"] == {"key_id": "shared-1", "customer_id": "c:7"}


def test_a_shared_key_is_an_admins_never_shown_and_never_replaced(
    admin: Client, member: Client, stranger: Client, sessions: Sessions
) -> None:
    body = {"name": "shared-1", "key": b64encode(KEY).decode()}
    config = {"table": "contacts", "format": "ndjson", "encrypt_lines": ASKED}

    refused = member.post("/v1/line-keys", body)
    short = admin.post("/v1/line-keys", {**body, "key": "c2hvcnQ="})
    kept, again = admin.post("/v1/line-keys", body), admin.post("/v1/line-keys", body)
    foreign = stranger.post("/v1/jobs", {"type": "export", "config": config})
    shown = member.get("/v1/line-keys")
    gone = [stranger.delete("/v1/line-keys/shared-1"), admin.delete("/v1/line-keys/shared-1")]

    assert [one.status_code for one in (refused, short, kept, again, *gone)] == [403, 422, 201, 409, 404, 204]
    assert short.get_json()["errors"][0]["pointer"] == "/key"
    assert (foreign.status_code, foreign.get_json()["errors"][0]["pointer"]) == (422, "/config/encrypt_lines/key")
    assert body["key"] not in shown.text + kept.text
    with sessions.begin() as session:
        assert session.execute(text("SELECT count(*) FROM line_keys")).scalar_one() == 0


@pytest.mark.parametrize("changes", [{"format": "csv"}, {"format": "ndjson", "max_rows_per_part": 5}])
def test_what_has_no_lines_or_no_places_is_not_encrypted_by_lines(
    admin: Client, exporting: Exporting, changes: dict[str, object]
) -> None:
    answer = admin.post("/v1/jobs", {"type": "export", "config": {"table": "pairs", "encrypt_lines": ASKED, **changes}})

    assert answer.status_code == 422
    assert "encrypt_lines" in answer.text
    assert exporting.jobs == []
