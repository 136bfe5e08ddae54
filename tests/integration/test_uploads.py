"""Uploads: presigned PUT, parts, and what they refuse."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import requests

from app.domain.errors import ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from app.persistence.keys import add_tenant
from app.persistence.sessions import Sessions
from app.services.uploads import MOST_PARTS, Uploads
from app.storage.s3 import S3Store
from app.storage.scope import resolve
from config.settings import Settings

NOW = datetime(2026, 11, 21, tzinfo=UTC)


class FrozenClock:
    def now(self) -> datetime:
        return NOW


@pytest.fixture
def store(settings: Settings) -> S3Store:
    return S3Store(settings)


@pytest.fixture
def uploads(sessions: Sessions, settings: Settings, store: S3Store) -> Uploads:
    with sessions.begin() as session:
        for tenant in ("acme", "other"):
            add_tenant(session, tenant)
    return Uploads(sessions, store, settings, FrozenClock())


@pytest.mark.parametrize("tenant", ["default", "acme"])
def test_a_file_sent_to_the_url_is_what_a_job_finds_under_the_key(
    uploads: Uploads, store: S3Store, settings: Settings, tenant: str
) -> None:
    ticket = uploads.create(tenant, filename="my contacts.csv", created_by="key", size_bytes=4)
    before = uploads.get(tenant, ticket.upload.id)

    answer = requests.put(str(ticket.url), data=b"a,b\n", timeout=5)

    assert answer.status_code == 200
    assert ticket.s3_key == f"uploads/{ticket.upload.id}_my_contacts.csv"
    assert ticket.expires_at == NOW + timedelta(seconds=settings.upload_ttl_s)
    with store.open(resolve(settings, tenant, None, ticket.s3_key)) as reader:
        assert reader.read() == b"a,b\n"
    assert before[1] is None
    info = uploads.get(tenant, ticket.upload.id)[1]
    assert info is not None
    assert info.size_bytes == 4


def test_a_url_stores_only_its_own_key(uploads: Uploads) -> None:
    ticket = uploads.create("acme", filename="a.csv", created_by="key")

    answer = requests.put(str(ticket.url).replace("/t/acme/", "/t/other/"), data=b"evil", timeout=5)

    assert answer.status_code == 403


def test_a_large_file_goes_in_parts_that_are_joined_once(uploads: Uploads, store: S3Store) -> None:
    announced: dict[str, Any] = {"size_bytes": 12 * 2**20, "content_type": "text/csv"}
    ticket = uploads.create("acme", filename="big.csv", created_by="key", parts=2, **announced)
    body = os.urandom(12 * 2**20)
    assert ticket.part_bytes is not None
    parts: list[dict[str, Any]] = []
    for number, url in enumerate(ticket.part_urls, start=1):
        piece = body[(number - 1) * ticket.part_bytes : number * ticket.part_bytes]
        parts.append({"PartNumber": number, "ETag": requests.put(url, data=piece, timeout=10).headers["ETag"]})

    upload, info = uploads.complete("acme", ticket.upload.id, parts)
    again, same = uploads.complete("acme", ticket.upload.id, parts)

    assert ticket.url is None
    assert (len(parts), info.size_bytes) == (2, len(body))
    assert upload.completed_at is not None
    assert (again, same) == (upload, info)
    with store.open(upload.ref) as reader:
        assert reader.read() == body


@pytest.mark.parametrize(
    ("size_bytes", "parts", "count", "part_mib"),
    [
        (None, None, 0, None),
        (0, None, 0, None),
        (100_000_000, None, 0, None),
        (100_000_001, None, 6, 16),
        (3 * 10**9, None, 179, 16),
        (500 * 10**9, None, 1000, 477),
        (10, 5, 1, 5),
        (52_428_800, 5, 5, 10),
        (None, 7, 7, None),
    ],
)
def test_a_file_is_cut_by_its_size(
    uploads: Uploads, size_bytes: int | None, parts: int | None, count: int, part_mib: int | None
) -> None:
    ticket = uploads.create("acme", filename="a.csv", created_by="key", size_bytes=size_bytes, parts=parts)

    assert len(ticket.part_urls) == count <= MOST_PARTS
    assert (ticket.url is None) == bool(count)
    assert ticket.part_bytes == (part_mib and part_mib * 2**20)
    if size_bytes and ticket.part_bytes:
        assert (count - 1) * ticket.part_bytes < size_bytes <= count * ticket.part_bytes


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"filename": ""}, "/filename"),
        ({"filename": "a\0.csv"}, "/filename"),
        ({"filename": "x" * 1001}, "/filename"),
        ({"size_bytes": -1}, "/size_bytes"),
        ({"size_bytes": 10**13}, "/size_bytes"),
        ({"parts": 0}, "/parts"),
        ({"parts": 1001}, "/parts"),
    ],
)
def test_what_cannot_be_uploaded_is_refused(uploads: Uploads, wrong: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        uploads.create("acme", **{"filename": "a.csv", "created_by": "key"} | wrong)

    assert [problem.pointer for problem in error.value.problems] == [pointer]


@pytest.mark.feature("S4-84")
def test_a_file_name_never_leaves_its_place(uploads: Uploads) -> None:
    ticket = uploads.create("acme", filename="../../t/other/evil.csv", created_by="key")

    assert ticket.upload.ref.key == f"t/acme/uploads/{ticket.upload.id}_evil.csv"
    assert ticket.upload.filename == "../../t/other/evil.csv"


@pytest.mark.parametrize(
    "parts", [[], [{"PartNumber": 2, "ETag": "x"}], [{"PartNumber": "1", "ETag": "x"}], [{"ETag": "x"}]]
)
def test_parts_that_were_not_sent_cannot_be_joined(uploads: Uploads, parts: list[dict[str, Any]]) -> None:
    ticket = uploads.create("acme", filename="a.csv", created_by="key", parts=2)

    with pytest.raises(InvalidRequestError) as error:
        uploads.complete("acme", ticket.upload.id, parts)

    assert error.value.code == "upload.parts_invalid"
    assert uploads.get("acme", ticket.upload.id)[0].completed_at is None


def test_a_single_put_needs_no_completion(uploads: Uploads) -> None:
    ticket = uploads.create("acme", filename="a.csv", created_by="key")

    with pytest.raises(ConflictError):
        uploads.complete("acme", ticket.upload.id, [{"PartNumber": 1, "ETag": "x"}])


def test_another_tenants_upload_is_not_found(uploads: Uploads) -> None:
    ticket = uploads.create("acme", filename="a.csv", created_by="key", parts=1)

    for look in (
        lambda: uploads.get("other", ticket.upload.id),
        lambda: uploads.complete("other", ticket.upload.id, [{"PartNumber": 1, "ETag": "x"}]),
        lambda: uploads.get("acme", uuid4()),
    ):
        with pytest.raises(NotFoundError):
            look()


def test_parts_cannot_be_prepared_while_s3_is_away(sessions: Sessions, settings: Settings, uploads: Uploads) -> None:
    away = S3Store(settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:1"}), attempts=1)

    with pytest.raises(UnavailableError):
        Uploads(sessions, away, settings, FrozenClock()).create("acme", filename="a", created_by="key", parts=1)


@pytest.mark.feature("S4-85")
def test_only_the_file_that_was_announced_is_taken_by_its_url(uploads: Uploads) -> None:
    ticket = uploads.create("acme", filename="a.csv", created_by="key", size_bytes=4, content_type="text/csv")
    csv = {"Content-Type": "text/csv"}

    longer, shorter = (requests.put(str(ticket.url), data=body, headers=csv, timeout=5) for body in (b"a,b,c\n", b"a"))
    other = requests.put(str(ticket.url), data=b"a,b\n", headers={"Content-Type": "text/plain"}, timeout=5)
    untyped = requests.put(str(ticket.url), data=b"a,b\n", timeout=5)
    before = uploads.get("acme", ticket.upload.id)[1]
    announced = requests.put(str(ticket.url), data=b"a,b\n", headers=csv, timeout=5)

    assert [answer.status_code for answer in (longer, shorter, other, untyped)] == [403] * 4
    assert before is None
    assert announced.status_code == 200


@pytest.mark.feature("S4-85")
def test_a_part_of_another_length_is_not_taken(uploads: Uploads) -> None:
    ticket = uploads.create("acme", filename="a.csv", created_by="key", size_bytes=6 * 2**20, parts=2)

    whole, last = ticket.part_urls
    sent = [requests.put(url, data=b"x" * 2**20, timeout=5).status_code for url in (whole, last)]

    assert sent == [403, 200]


@pytest.mark.feature("S4-85")
def test_joined_parts_that_are_not_what_was_announced_are_removed(uploads: Uploads, store: S3Store) -> None:
    ticket = uploads.create("acme", filename="a.csv", created_by="key", size_bytes=6 * 2**20, parts=2)
    etag = requests.put(ticket.part_urls[0], data=b"x" * 5 * 2**20, timeout=5).headers["ETag"]

    with pytest.raises(InvalidRequestError) as error:
        uploads.complete("acme", ticket.upload.id, [{"PartNumber": 1, "ETag": etag}])

    assert (error.value.code, error.value.problems[0].pointer) == ("upload.mismatch", "/parts")
    assert uploads.get("acme", ticket.upload.id)[1] is None


@pytest.mark.feature("S4-85")
@pytest.mark.parametrize("size_bytes", [5 * 10**9 + 1, 50 * 10**9])
def test_a_file_over_what_one_put_takes_goes_in_parts(uploads: Uploads, size_bytes: int) -> None:
    ticket = uploads.create("acme", filename="a.csv", created_by="key", size_bytes=size_bytes)

    assert ticket.url is None
    assert ticket.part_bytes is not None
    assert (len(ticket.part_urls) - 1) * ticket.part_bytes < size_bytes <= len(ticket.part_urls) * ticket.part_bytes
