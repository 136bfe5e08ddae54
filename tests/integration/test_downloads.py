"""Downloads through us: ranges, links, encrypted files, and what is said when something is wrong with one."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner
from flask import Flask
from moto import mock_aws
from pydantic import SecretStr
from sqlalchemy import text

from app.bootstrap import Services, build_services
from app.cli.main import main
from app.domain.errors import JobError
from app.domain.ports import ObjectRef
from app.domain.tables import Column, ColumnType, Table
from app.factory import create_app
from app.persistence.sessions import Sessions
from app.security import links
from app.security.sealed_files import FRAME_BYTES, MAGIC
from app.services.tables import Tables
from app.storage.s3 import S3Store
from config.settings import Settings
from tests.integration.conftest import Client
from tests.integration.exports import Exporting

SECRET, MASTER = "a secret that signs", "m" * 32
ROWS = 20_000


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"secret_key": SecretStr(SECRET), "master_key": SecretStr(MASTER)})


@pytest.fixture
def exporting(sessions: Sessions, settings: Settings) -> Exporting:
    table = Table("words", (Column("id", ColumnType.BIGINT), Column("word", ColumnType.TEXT)), ("id",))
    Tables(sessions).declare("default", table)
    with sessions.begin() as session:
        session.execute(
            text("INSERT INTO t_default.words (id, word) SELECT g, 'word ' || g FROM generate_series(1, :rows) AS g"),
            {"rows": ROWS},
        )
    return Exporting(settings, sessions, S3Store(settings))


ORDER = {"order_by": [{"order_by": "id"}]}


def file_of(client: Client, exporting: Exporting) -> dict[str, Any]:
    """The exported file as the API shows it."""
    items = client.get(f"/v1/jobs/{exporting.jobs[-1].id}/artifacts").get_json()["items"]
    (file,) = [one for one in items if one["kind"] == "export"]
    return dict(file)


def local(url: str) -> str:
    """A link's path and query, as the application is asked for them."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def content(client: Client, file: dict[str, Any], **arguments: Any) -> Any:
    return client.get(f"/v1/artifacts/{file['id']}/content", **arguments)


@pytest.mark.feature("S0-30")
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_an_encrypted_export_is_stored_as_ciphertext_and_downloads_as_what_it_is(
    exporting: Exporting, member: Client, nobody: Client, compression: str
) -> None:
    plain = exporting.body(exporting.export("words", vql=ORDER, compression=compression))

    result = exporting.export("words", vql=ORDER, compression=compression, encrypted=True)

    file = file_of(member, exporting)
    downloaded = nobody.get(local(file["url"]))
    kept = exporting.body(result)
    assert kept.startswith(MAGIC)
    assert b"word 1" not in kept
    assert downloaded.data == plain
    assert (file["size_bytes"], file["sha256"], file["encrypted"]) == (
        len(plain),
        hashlib.sha256(plain).hexdigest(),
        True,
    )
    assert file["name"].endswith(".csv" if compression == "none" else ".csv.gz")
    assert file["name"] in downloaded.headers["Content-Disposition"]
    (part,) = exporting.manifest(result)["parts"]
    assert part["sealed"]["bytes"] == len(kept)
    assert part["sealed"]["sha256"] == hashlib.sha256(kept).hexdigest()


@pytest.mark.feature("S0-22")
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_download_goes_on_where_it_broke_off(exporting: Exporting, member: Client, encrypted: bool) -> None:
    exporting.export("words", vql=ORDER, encrypted=encrypted)
    file = file_of(member, exporting)
    whole = content(member, file)
    body, etag = whole.data, whole.headers["ETag"]
    assert len(body) > 2 * FRAME_BYTES

    for start in (1, FRAME_BYTES - 1, FRAME_BYTES, len(body) - 1):
        rest = content(member, file, headers={"Range": f"bytes={start}-", "If-Range": etag})
        assert (rest.status_code, body[:start] + rest.data) == (206, body)
        assert rest.headers["Content-Range"] == f"bytes {start}-{len(body) - 1}/{len(body)}"
    assert content(member, file, headers={"Range": "bytes=-5"}).data == body[-5:]
    assert content(member, file, headers={"Range": "bytes=5-9"}).data == body[5:10]
    other = content(member, file, headers={"Range": "bytes=5-", "If-Range": '"another"'})
    assert (other.status_code, other.data) == (200, body)
    beyond = content(member, file, headers={"Range": f"bytes={len(body)}-"})
    assert (beyond.status_code, beyond.get_json()["code"]) == (416, "request.range_invalid")
    assert content(member, file, headers={"If-None-Match": etag}).status_code == 304
    head = member.call("HEAD", f"/v1/artifacts/{file['id']}/content")
    assert (head.status_code, head.data, head.headers["Content-Length"]) == (200, b"", str(len(body)))


@pytest.mark.feature("S0-30")
@pytest.mark.parametrize("how", ["flipped", "cut off", "another's"])
def test_a_file_that_was_tampered_with_is_not_given_out_and_that_is_said(
    exporting: Exporting, member: Client, settings: Settings, how: str
) -> None:
    key = exporting.export("words", vql=ORDER, encrypted=True).data["s3_key"]
    file = file_of(member, exporting)
    kept = exporting.read(key)
    other = exporting.body(exporting.export("words", vql=ORDER, encrypted=True))
    forged = {
        "flipped": kept[:400] + bytes([kept[400] ^ 1]) + kept[401:],
        "cut off": kept[: -(FRAME_BYTES + 16)],
        "another's": other,
    }[how]
    exporting.objects.put(ObjectRef(settings.s3_bucket, key), forged, content_type="text/csv")

    answer = content(member, file)

    assert (answer.status_code, answer.get_json()["code"]) == (500, "file.tampered")


@pytest.mark.feature("S0-20", "S0-21")
def test_a_link_is_good_for_its_file_and_its_time_alone(
    exporting: Exporting, member: Client, nobody: Client, stranger: Client
) -> None:
    exporting.export("words", encrypted=True)
    file = file_of(member, exporting)
    asked = parse_qs(urlsplit(file["url"]).query)
    expires, path = int(asked["expires"][0]), urlsplit(file["url"]).path
    past = int(datetime.now(UTC).timestamp()) - 1

    signed = asked["signature"][0]
    later = nobody.get(f"{path}?tenant=default&expires={expires + 1}&signature={signed}")
    other = nobody.get(f"{path}?tenant=acme&expires={expires}&signature={signed}")
    elsewhere = nobody.get(f"/v1/jobs?tenant=default&expires={expires}&signature={signed}")
    forged = links.signature(SECRET, f"{path}?tenant=default", past)
    over = nobody.get(f"{path}?tenant=default&expires={past}&signature={forged}")
    half = nobody.get(f"{path}?tenant=default&expires={expires}")
    without = nobody.get(path)
    foreign = stranger.get(path)

    assert abs(expires - datetime.now(UTC).timestamp() - 43_200) < 60
    for answer in (later, other, elsewhere):
        assert (answer.status_code, answer.get_json()["code"]) == (403, "link.invalid")
    assert (over.status_code, over.get_json()["code"]) == (403, "link.expired")
    assert (half.status_code, without.status_code, foreign.status_code) == (401, 401, 404)


@pytest.mark.feature("S0-33")
def test_an_expired_file_stays_as_a_row_and_its_download_is_410(
    exporting: Exporting, member: Client, nobody: Client, sessions: Sessions, settings: Settings, web_services: Services
) -> None:
    result = exporting.export("words", encrypted=True)
    link = local(file_of(member, exporting)["url"])
    with sessions.begin() as session:
        session.execute(text("UPDATE artifacts SET expires_at = now() - interval '1 s'"))
    before = content(member, file_of(member, exporting))

    removed = [web_services.artifacts.remove_expired(), web_services.artifacts.remove_expired()]

    file = file_of(member, exporting)
    assert removed == [2, 0]
    assert (file["state"], file["url"], file["size_bytes"] > 0) == ("expired", None, True)
    assert [key for key, _ in exporting.objects.list(settings.s3_bucket, result.data["s3_key"])] == []
    for answer in (before, content(member, file), nobody.get(link)):
        assert (answer.status_code, answer.get_json()["code"]) == (410, "artifact.expired")


def test_a_file_that_somebody_removed_from_the_bucket_is_410(
    exporting: Exporting, member: Client, settings: Settings
) -> None:
    key = exporting.export("words").data["s3_key"]
    exporting.objects.delete([ObjectRef(settings.s3_bucket, key)])

    answer = content(member, file_of(member, exporting))

    assert (answer.status_code, answer.get_json()["code"]) == (410, "artifact.lost")


def _asked_of(settings: Settings, sessions: Sessions) -> tuple[Flask, Services]:
    services = build_services(settings, application_name="tests other web", pool_size=4)
    return create_app(settings, services), services


def test_files_of_before_a_new_master_key_are_still_read(
    exporting: Exporting, member: Client, settings: Settings, sessions: Sessions
) -> None:
    exporting.export("words", vql=ORDER, encrypted=True)
    file = file_of(member, exporting)
    body = content(member, file).data
    rotated = {"master_key": SecretStr("n" * 32), "former_master_keys": (SecretStr(MASTER),)}
    without = {"master_key": SecretStr("n" * 32)}

    answers = []
    for keys in (rotated, without):
        app, services = _asked_of(settings.model_copy(update=keys), sessions)
        answers.append(content(Client(app, member.key), file))
        services.sessions.kw["bind"].dispose()

    assert answers[0].data == body
    assert (answers[1].status_code, answers[1].get_json()["code"]) == (500, "master_key.unknown")


@pytest.mark.feature("S0-23")
@pytest.mark.parametrize("encrypted", [False, True])
def test_with_a_cdn_links_lead_there_and_give_the_same_bytes(
    exporting: Exporting, member: Client, settings: Settings, sessions: Sessions, encrypted: bool
) -> None:
    exporting.export("words", vql=ORDER, encrypted=encrypted)
    body = content(member, file_of(member, exporting)).data
    app, services = _asked_of(settings.model_copy(update={"cdn_base_url": "https://cdn.example.com/files"}), sessions)

    url = file_of(Client(app, member.key), exporting)["url"]

    base, _, path = url.partition("/v1/")
    fetched = Client(app, None).get(f"/v1/{path}")
    by_key = Client(app, member.key).get(f"/v1/{path.partition('?')[0]}?any=1")
    services.sessions.kw["bind"].dispose()
    assert by_key.headers["Cache-Control"] == "private, no-cache"
    assert base == "https://cdn.example.com/files"
    assert (fetched.data, fetched.headers["Cache-Control"]) == (body, "public, max-age=3600")


@pytest.mark.feature("S0-30")
def test_an_encrypted_file_in_a_folder_is_ciphertext_that_the_owner_verifies_and_decrypts(
    exporting: Exporting, settings: Settings, tmp_path: Path
) -> None:
    exporting.settings = settings.model_copy(update={"export_root": tmp_path})
    plain = exporting.body(exporting.export("words", vql=ORDER))

    exporting.export("words", vql=ORDER, encrypted=True, key="words", destination={"folder": "out"})

    folder = tmp_path / "default" / "out"
    file = folder / "words.csv.sealed"
    kept = file.read_bytes()
    env = {"HAULIER_SECRET_KEY": SECRET, "HAULIER_MASTER_KEY": MASTER}
    sealed = CliRunner().invoke(main, ["verify", str(folder), "--require-signature"], env=env)
    opened = CliRunner().invoke(main, ["decrypt", str(file)], env=env)
    assert (sealed.exit_code, opened.exit_code) == (0, 0), (sealed.output, opened.output)
    assert (folder / "words.csv").read_bytes() == plain
    assert b"word 1" not in kept
    file.write_bytes(kept[:500] + bytes([kept[500] ^ 1]) + kept[501:])
    (folder / "words.csv").unlink()
    changed = CliRunner().invoke(main, ["verify", str(folder)], env=env)
    refused = CliRunner().invoke(main, ["decrypt", str(file)], env=env)
    assert (changed.exit_code, refused.exit_code) == (1, 1)
    assert "was changed" in refused.output
    assert {one.name for one in folder.iterdir()} == {file.name, f"{file.name}.manifest.json"}
    file.unlink()
    (folder / "words.csv").write_bytes(plain)
    assert CliRunner().invoke(main, ["verify", str(folder)], env=env).exit_code == 0


@pytest.mark.feature("S0-30")
def test_encrypted_parts_resume_as_plain_ones_do(exporting: Exporting, member: Client) -> None:
    from tests.integration.test_export_parts import Failing

    job = exporting.submit("words", max_rows_per_part=6_000, encrypted=True)
    with pytest.raises(JobError):
        exporting.run(job, Failing(exporting.objects, at=3))

    result = exporting.run(exporting.claim(job), Failing(exporting.objects, at=3))

    assert (result.data["restarted"], result.data["parts"]) == (0, 4)
    items = member.get(f"/v1/jobs/{job.id}/artifacts").get_json()["items"]
    bodies = [content(member, one).data for one in items if one["kind"] == "export"]
    assert sorted(int(line.split(b",")[0]) for body in bodies for line in body.splitlines()[1:]) == [
        *range(1, ROWS + 1)
    ]


def test_without_a_master_key_nothing_is_encrypted(
    exporting: Exporting, member: Client, settings: Settings, sessions: Sessions
) -> None:
    app, services = _asked_of(settings.model_copy(update={"master_key": None}), sessions)

    answer = Client(app, member.key).post(
        "/v1/jobs", {"type": "export", "config": {"table": "words", "encrypted": True}}
    )

    services.sessions.kw["bind"].dispose()
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.get_json()["errors"]] == ["/config/encrypted"]


@pytest.mark.feature("S0-19")
def test_s3_is_asked_to_encrypt_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = Settings(
        s3_bucket="sealed", s3_access_key_id="a", s3_secret_access_key="b", s3_server_side_encryption="AES256"
    )
    with mock_aws():
        store = S3Store(settings)
        store.client.create_bucket(Bucket="sealed")

        store.put(ObjectRef("sealed", "small"), b"x", content_type="text/plain")
        upload = store.start_upload(ObjectRef("sealed", "large"), content_type="text/plain")
        upload.write(b"y" * 100)
        upload.complete(upload.finish_parts())

        heads = [store.client.head_object(Bucket="sealed", Key=key) for key in ("small", "large")]
    assert [head["ServerSideEncryption"] for head in heads] == ["AES256", "AES256"]
