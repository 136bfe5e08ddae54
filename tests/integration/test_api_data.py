"""Tables, records, uploads, files and the ledger over HTTP."""

from __future__ import annotations

import csv
import hashlib
import io
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from sqlalchemy import text

from app.bootstrap import Services
from app.domain.artifacts import Artifact, ArtifactKind
from app.domain.ports import ObjectRef, ObjectStore
from app.persistence import artifacts, ledger
from app.persistence.sessions import Sessions
from tests.conftest import BUCKET
from tests.integration.conftest import Client

ORDERS = {
    "name": "orders",
    "columns": [
        {"name": "id", "type": "bigint"},
        {"name": "email", "type": "text", "required": True, "max_length": 50, "format": "email"},
        {"name": "price", "type": "numeric"},
        {"name": "tags", "type": "text[]"},
    ],
    "key": ["id"],
    "indexes": [{"columns": ["email"], "trigram": True}],
    "aliases": {"mail": "email"},
}


def _orders(admin: Client, sessions: Sessions, rows: int) -> None:
    assert admin.post("/v1/tables", ORDERS).status_code == 201
    with sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO t_default.orders (id, email, price, tags) "
                "SELECT n, 'a' || n || '@b.c', n + 0.10, ARRAY['x'] FROM generate_series(1, :rows) AS n"
            ),
            {"rows": rows},
        )


def test_an_admin_declares_a_table_and_everybody_sees_it(admin: Client, member: Client) -> None:
    declared = admin.post("/v1/tables", ORDERS)

    listed = member.get("/v1/tables").get_json()["items"]
    described = member.get(declared.headers["Location"]).get_json()

    assert declared.status_code == 201
    assert [table["name"] for table in listed] == ["companies", "contacts", "orders"]
    assert described["columns"][1] == {**ORDERS["columns"][1], "filterable": False}  # type: ignore[index]  # a literal of mixed values
    assert described["key"] == ["id"]
    assert described["valid_indexes"] == ["orders_email_trgm"]
    assert described["postgres_columns"]["tags"] == "text[]"
    assert not described["built_in"]


def test_declaring_the_same_again_changes_nothing_and_another_needs_a_higher_version(admin: Client) -> None:
    admin.post("/v1/tables", ORDERS)
    wider = {**ORDERS, "columns": [*ORDERS["columns"], {"name": "note", "type": "text"}]}  # type: ignore[misc]  # a literal of mixed values

    again = admin.post("/v1/tables", ORDERS)
    refused = admin.post("/v1/tables", wider)
    accepted = admin.post("/v1/tables", {**wider, "version": 2})

    assert [answer.status_code for answer in (again, refused, accepted)] == [201, 409, 201]
    assert refused.get_json()["code"] == "table.version_conflict"


def test_a_member_neither_declares_nor_drops_a_table(admin: Client, member: Client) -> None:
    admin.post("/v1/tables", ORDERS)

    answers = [member.post("/v1/tables", {**ORDERS, "name": "more"}), member.delete("/v1/tables/orders")]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert admin.get("/v1/tables/orders").status_code == 200


def test_a_dropped_table_is_gone_and_a_built_in_one_stays(admin: Client) -> None:
    admin.post("/v1/tables", ORDERS)

    dropped = admin.delete("/v1/tables/orders")
    refused = admin.delete("/v1/tables/contacts")

    assert (dropped.status_code, dropped.data) == (204, b"")
    assert admin.get("/v1/tables/orders").status_code == 404
    assert (refused.status_code, refused.get_json()["code"]) == (409, "table.built_in")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": "Orders"}, "/name"),
        ({"key": ["nope"]}, "/key/0"),
        ({"columns": [{"name": "id", "type": "int8"}]}, "/columns/0/type"),
        ({"columns": [{"name": "haulier_x", "type": "text"}]}, "/columns/0/name"),
        ({"columns": []}, "/columns"),
        ({"surprise": 1}, "/surprise"),
        ({"indexes": [{"columns": ["nope"]}]}, "/indexes/0/columns"),
    ],
)
def test_a_declaration_that_does_not_fit_is_422_with_a_pointer(
    admin: Client, change: dict[str, Any], pointer: str
) -> None:
    answer = admin.post("/v1/tables", {**ORDERS, **change})

    assert answer.status_code == 422
    assert pointer in [fault["pointer"] for fault in answer.get_json()["errors"]]


def test_the_pages_of_a_query_hold_every_row_once(admin: Client, sessions: Sessions) -> None:
    _orders(admin, sessions, 25)
    body = {"vql": {"order_by": [{"order_by": "email", "order_direction": "desc"}]}, "limit": 10}

    pages, path = [], "/v1/tables/orders/records:query"
    while path:
        answer = admin.post(path, body)
        pages.append(answer.get_json()["items"])
        link = answer.headers.get("Link", "")
        path = link[1 : link.index(">")] if link else ""

    assert [len(page) for page in pages] == [10, 10, 5]
    emails = [row["email"] for page in pages for row in page]
    assert emails == sorted((f"a{n}@b.c" for n in range(1, 26)), reverse=True)
    assert pages[0][0]["price"] == "9.10"


def test_the_cursor_of_a_page_works_in_the_body_too(admin: Client, sessions: Sessions) -> None:
    _orders(admin, sessions, 3)
    first = admin.post("/v1/tables/orders/records:query", {"limit": 2}).get_json()

    second = admin.post("/v1/tables/orders/records:query", {"limit": 2, "cursor": first["next_cursor"]}).get_json()

    assert [row["id"] for row in first["items"] + second["items"]] == [1, 2, 3]
    assert second["next_cursor"] is None


def test_a_count_tells_how_many_rows_meet_the_conditions(admin: Client, sessions: Sessions) -> None:
    _orders(admin, sessions, 30)
    where = {"range_query": {"must": {"id": {"gt": 10}}}}

    answer = admin.post("/v1/tables/orders/records:count", {"vql": {"where": where}})

    assert answer.get_json() == {"count": 20}


@pytest.mark.parametrize(
    ("vql", "code", "pointer"),
    [
        (
            {"where": {"keyword_match": {"must": {"nope": 1}}}},
            "vql.unknown_column",
            "/vql/where/keyword_match/must/nope",
        ),
        ({"select_columns": ["id; DROP TABLE jobs"]}, "vql.unknown_column", "/vql/select_columns/0"),
    ],
)
def test_a_query_that_cannot_be_used_is_422_with_a_pointer(
    admin: Client, vql: dict[str, Any], code: str, pointer: str
) -> None:
    admin.post("/v1/tables", ORDERS)

    answer = admin.post("/v1/tables/orders/records:query", {"vql": vql})

    assert (answer.status_code, answer.get_json()["code"]) == (422, code)
    assert [fault["pointer"] for fault in answer.get_json()["errors"]] == [pointer]


def test_a_broken_cursor_and_an_over_high_limit_are_refused(admin: Client) -> None:
    broken = admin.post("/v1/tables/contacts/records:query", {"cursor": "nonsense!"})
    too_many = admin.post("/v1/tables/contacts/records:query", {"limit": 1001})

    assert (broken.status_code, broken.get_json()["code"]) == (400, "cursor.invalid")
    assert (too_many.status_code, too_many.get_json()["errors"][0]["pointer"]) == (422, "/limit")


@pytest.mark.feature("S4-85")
def test_a_file_sent_by_presigned_put_has_arrived_whole(member: Client, objects: ObjectStore) -> None:
    created = member.post("/v1/uploads", {"filename": "my contacts.csv", "size_bytes": 5})
    ticket = created.get_json()
    before = member.get(created.headers["Location"]).get_json()

    sent = requests.put(ticket["url"], data=b"a,b\n1", timeout=10)
    after = member.get(created.headers["Location"]).get_json()

    assert sent.status_code == 200
    assert (before["arrived"], after["arrived"], after["size_bytes"]) == (False, True, 5)
    assert ticket["parts"] == []
    assert objects.head(ObjectRef(BUCKET, ticket["s3_key"])).size_bytes == 5


@pytest.mark.feature("S4-85")
def test_a_file_sent_in_parts_is_joined_once_and_again_without_harm(member: Client, objects: ObjectStore) -> None:
    blocks = [b"x" * 5 * 2**20, b"end"]
    ticket = member.post("/v1/uploads", {"filename": "a.csv", "parts": 2}).get_json()
    etags = [
        requests.put(part["url"], data=block, timeout=30).headers["ETag"].strip('"')
        for part, block in zip(ticket["parts"], blocks, strict=True)
    ]
    body = {"parts": [{"number": number, "etag": etag} for number, etag in enumerate(etags, start=1)]}

    joined = [member.post(f"/v1/uploads/{ticket['id']}:complete", body) for _ in range(2)]

    assert [answer.status_code for answer in joined] == [200, 200]
    assert joined[0].get_json()["size_bytes"] == 5 * 2**20 + 3
    with objects.open(ObjectRef(BUCKET, ticket["s3_key"])) as stream:
        assert hashlib.sha256(stream.read()).digest() == hashlib.sha256(b"".join(blocks)).digest()


def test_parts_that_were_never_sent_are_refused(member: Client) -> None:
    ticket = member.post("/v1/uploads", {"filename": "a.csv", "parts": 1}).get_json()

    answer = member.post(f"/v1/uploads/{ticket['id']}:complete", {"parts": [{"number": 1, "etag": "0" * 32}]})

    assert (answer.status_code, answer.get_json()["code"]) == (422, "upload.parts_invalid")


def test_a_tenants_upload_lies_in_its_own_place(stranger: Client) -> None:
    ticket = stranger.post("/v1/uploads", {"filename": "a.csv"}).get_json()

    assert ticket["s3_key"].startswith("uploads/")
    assert "/t/acme/uploads/" in ticket["url"]


def _job_with_file(member: Client, sessions: Sessions, objects: ObjectStore) -> str:
    """A cancelled job with an export of two rows."""
    job_id: str = member.post("/v1/jobs", {"type": "echo"}).get_json()["id"]
    member.post(f"/v1/jobs/{job_id}:cancel")
    ref = ObjectRef(BUCKET, f"exports/{job_id}.csv")
    objects.put(ref, b"id\n1\n2\n", content_type="text/csv", filename="rows.csv")
    artifact = Artifact(
        id=uuid4(),
        job_id=UUID(job_id),
        tenant="default",
        kind=ArtifactKind.EXPORT,
        name="rows.csv",
        content_type="text/csv",
        ref=ref,
        size_bytes=7,
        sha256=hashlib.sha256(b"id\n1\n2\n").hexdigest(),
        rows=2,
    )
    with sessions.begin() as session:
        artifacts.put(session, "default", artifact)
    return job_id


@pytest.mark.feature("S0-20", "S0-21", "S2-67", "S4-88")
def test_a_jobs_file_is_downloaded_without_a_key_for_twelve_hours(
    member: Client, sessions: Sessions, objects: ObjectStore
) -> None:
    job_id = _job_with_file(member, sessions, objects)

    [file, *_] = member.get(f"/v1/jobs/{job_id}/artifacts").get_json()["items"]
    one = member.get(f"/v1/artifacts/{file['id']}").get_json()
    result = member.get(f"/v1/jobs/{job_id}/result").get_json()
    bodies = [requests.get(url, timeout=10).content for url in (file["url"], one["url"], result["file_url"])]

    assert bodies == [b"id\n1\n2\n"] * 3
    assert "X-Amz-Expires=43200" in file["url"]
    assert (file["rows"], file["size_bytes"], file["sha256"]) == (2, 7, hashlib.sha256(bodies[0]).hexdigest())


@pytest.mark.feature("S0-20")
def test_a_changed_link_downloads_nothing(member: Client, sessions: Sessions, objects: ObjectStore) -> None:
    job_id = _job_with_file(member, sessions, objects)
    [file, *_] = member.get(f"/v1/jobs/{job_id}/artifacts").get_json()["items"]

    answer = requests.get(file["url"].replace("X-Amz-Expires=43200", "X-Amz-Expires=604800"), timeout=10)

    assert answer.status_code == 403


def test_a_job_without_a_file_has_no_link(member: Client) -> None:
    job_id = member.post("/v1/jobs", {"type": "echo"}).get_json()["id"]
    member.post(f"/v1/jobs/{job_id}:cancel")

    result = member.get(f"/v1/jobs/{job_id}/result").get_json()

    assert result["file_url"] is None
    assert result["inline"] is None
    files = member.get(f"/v1/jobs/{job_id}/artifacts").get_json()["items"]
    assert [(file["kind"], file["url"]) for file in files] == [("log", None), ("report", None)]


def _job_with_failed_rows(member: Client, sessions: Sessions, rows: int) -> str:
    job_id: str = member.post("/v1/jobs", {"type": "echo"}).get_json()["id"]
    entries = [
        ledger.Entry(line, line * 10, line * 10 + 9, f'x,"{line}"\n', False, "email", "value.email", "no\tat sign")
        for line in range(2, rows + 2)
    ]
    with sessions.begin() as session:
        ledger.add(session, "default", UUID(job_id), entries)
    return job_id


@pytest.mark.feature("S2-78")
def test_failed_rows_come_in_the_order_of_the_file_page_by_page(member: Client, sessions: Sessions) -> None:
    job_id = _job_with_failed_rows(member, sessions, 5)

    pages, path = [], f"/v1/jobs/{job_id}/failed-records?limit=2"
    while path:
        answer = member.get(path)
        pages.append(answer.get_json()["items"])
        link = answer.headers.get("Link", "")
        path = link[1 : link.index(">")] if link else ""

    assert [[row["line"] for row in page] for page in pages] == [[2, 3], [4, 5], [6]]
    assert {name: pages[0][0][name] for name in pages[0][0] if name != "at"} == {
        "id": f"{job_id}:2",
        "line": 2,
        "first_byte": 20,
        "end_byte": 29,
        "raw": 'x,"2"\n',
        "raw_is_base64": False,
        "field": "email",
        "stage": "validate",
        "code": "value.email",
        "message": "no\tat sign",
        "corrected": None,
        "resolved_by": None,
        "resolved_at": None,
    }


@pytest.mark.feature("S2-78")
def test_all_failed_rows_come_as_one_csv_download(member: Client, sessions: Sessions) -> None:
    job_id = _job_with_failed_rows(member, sessions, 4_321)

    answer = member.get(f"/v1/jobs/{job_id}/failed-records?format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.get_data(as_text=True))))

    assert answer.mimetype == "text/csv"
    assert f"failed-records-{job_id}.csv" in answer.headers["Content-Disposition"]
    assert [int(row["line"]) for row in rows] == list(range(2, 4_323))
    assert rows[0]["raw"] == 'x,"2"\n'


def test_the_download_of_another_tenants_failed_rows_is_404(
    member: Client, stranger: Client, sessions: Sessions
) -> None:
    job_id = _job_with_failed_rows(member, sessions, 1)

    answer = stranger.get(f"/v1/jobs/{job_id}/failed-records?format=csv")

    assert answer.status_code == 404


@pytest.mark.feature("S4-58")
def test_a_key_made_by_an_admin_works_until_it_is_revoked(admin: Client, web_services: Services) -> None:
    made = admin.post("/v1/keys", {"role": "member", "label": "for tests"}).get_json()
    client = Client(admin.app, made["key"])
    before = client.get("/v1/jobs").status_code

    revoked = admin.delete(f"/v1/keys/{made['id']}").get_json()
    after = client.get("/v1/jobs").status_code

    assert (before, after) == (200, 401)
    assert revoked["revoked_at"] is not None
    assert made["key"] not in admin.get("/v1/keys").get_data(as_text=True)


def test_a_member_manages_no_keys(member: Client) -> None:
    answers = [member.get("/v1/keys"), member.post("/v1/keys", {}), member.delete("/v1/keys/x")]

    assert {answer.status_code for answer in answers} == {403}


def test_a_job_list_takes_times_in_zones_that_postgres_does_not(member: Client) -> None:
    member.post("/v1/jobs", {"type": "echo"})

    found = member.get("/v1/jobs", query_string={"created_from": "2020-01-01T00:00:00-20:54"})
    refused = member.get("/v1/jobs", query_string={"created_from": "0001-01-01T00:00:00+12:00"})

    assert len(found.get_json()["items"]) == 1
    assert (refused.status_code, refused.get_json()["errors"][0]["pointer"]) == (422, "?created_from")
