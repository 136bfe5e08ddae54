"""A declaration out of a file: types, key, aliases; it can be posted as it is, and the file imported into it."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from app.domain.ports import ObjectRef, ObjectStore
from config.settings import Settings
from tests.integration.conftest import Client
from tests.integration.imports import ImportingAny

BODY = (
    "Order No.,E-Mail,Amount,Paid,When,2nd note,haulier_x,E mail\n"
    "1001,a@b.c,1.50,true,2024-05-31,x,1,\n"
    "1002,d@e.f,27,false,2024-06-01,,1,\n"
)


def inferred(client: Client, **source: Any) -> Any:
    return client.post("/v1/tables:infer", {"name": "orders", "source": source})


def test_a_declaration_is_proposed_with_types_key_aliases_and_examples(member: Client) -> None:
    answer = inferred(member, text=BODY)

    proposal = answer.get_json()
    declaration = proposal["declaration"]
    assert answer.status_code == 200, proposal
    assert [(column["name"], column["type"], column["required"]) for column in declaration["columns"]] == [
        ("order_no", "integer", True),
        ("e_mail", "text", True),
        ("amount", "numeric", True),
        ("paid", "boolean", True),
        ("when", "date", True),
        ("c_2nd_note", "text", False),
        ("c_haulier_x", "integer", True),
        ("e_mail_2", "text", False),
    ]
    assert (declaration["key"], proposal["key_candidates"]) == (["order_no"], ["order_no", "e_mail"])
    assert declaration["aliases"]["E-Mail"] == "e_mail"
    assert proposal["fields"][0]["examples"] == ["1001", "1002"]
    assert proposal["records"] == {"read": 2, "blank": 0, "rejected": 0, "complete": True}
    assert (proposal["file"]["format"], proposal["file"]["delimiter"]) == ("csv", ",")


def test_the_file_can_be_imported_into_the_table_that_was_proposed(
    admin: Client, settings: Settings, objects: ObjectStore, web_services: Any
) -> None:
    declaration = inferred(admin, text=BODY).get_json()["declaration"]

    declared = admin.post("/v1/tables", declaration)

    assert declared.status_code == 201, declared.get_json()
    imports = ImportingAny(settings, web_services.sessions, objects)
    result = imports.load(BODY, table="orders")
    assert (result.data["books"]["loaded"], result.data["books"]["failed"]) == (2, 0)


def test_a_file_of_s3_is_read_packed_or_not_and_json_too(
    member: Client, settings: Settings, objects: ObjectStore
) -> None:
    packed = gzip.compress(b'{"id": 1, "tags": ["a"]}\n{"id": 1, "tags": []}\n')
    objects.put(ObjectRef(settings.s3_bucket, "a.gz"), packed, content_type="application/gzip")

    proposal = inferred(member, s3_key="a.gz").get_json()

    assert [column["type"] for column in proposal["declaration"]["columns"]] == ["integer", "json"]
    assert (proposal["declaration"]["key"], proposal["file"]["compression"]) == ([], "gzip")


@pytest.mark.parametrize(
    ("source", "status", "pointer"),
    [
        ({}, 422, "/source"),
        ({"text": "a", "s3_key": "a"}, 422, "/source"),
        ({"text": "%PDF-1.4"}, 422, "/source"),
        ({"text": "\n\n"}, 422, "/source"),
        ({"s3_key": "nothing.csv"}, 422, "/source"),
        ({"upload": "0190c0de-0000-7000-8000-000000000000"}, 422, "/source/upload"),
        ({"s3_key": "t/other/../../x.csv"}, 403, ""),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    member: Client, source: dict[str, str], status: int, pointer: str
) -> None:
    answer = inferred(member, **source)

    assert answer.status_code == status, answer.get_json()
    assert any(error["pointer"].startswith(pointer) for error in answer.get_json().get("errors", [])) or not pointer
