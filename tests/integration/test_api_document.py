"""The native API as a whole: its document, its gate, and that no request breaks it."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as property_settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from sqlalchemy import text

import app.api.docs
from app.bootstrap import Services
from app.domain.artifacts import Artifact, ArtifactKind
from app.domain.error_codes import REMEDIES
from app.domain.ports import ObjectRef
from app.persistence import artifacts
from app.persistence.sessions import Sessions
from app.storage.s3 import S3Store
from tests.integration.api_walk import operations
from tests.integration.conftest import Client


@pytest.fixture
def document(nobody: Client) -> dict[str, Any]:
    answer: dict[str, Any] = nobody.get("/openapi.json").get_json()
    return answer


def test_the_document_is_valid_openapi_3_1_and_names_every_operation_once(document: dict[str, Any]) -> None:
    ids = Counter(operation.id for operation in operations(document))

    validate(document)

    assert document["openapi"].startswith("3.1")
    assert len(ids) > 25
    assert set(ids.values()) == {1}


def test_errors_are_documented_as_problem_json(document: dict[str, Any]) -> None:
    responses = document["components"]["responses"]

    media_types = {media_type for response in responses.values() for media_type in response.get("content", {})}

    assert media_types == {"application/problem+json"}
    assert "code" in document["components"]["schemas"]["Problem"]["properties"]


@pytest.mark.feature("S4-58")
def test_every_route_without_a_key_is_401_but_those_the_document_opens(
    nobody: Client, document: dict[str, Any]
) -> None:
    ids = dict.fromkeys(("job_id", "schedule_id", "artifact_id", "upload_id", "key_id"), str(uuid4())) | {
        "name": "contacts",
        "queue": "small",
        "kind": "key",
        "limited": "bank",
        "sink": "lake",
        "workbook": "crm",
        "line_key": "k1",
        "line": "2",
        "record_id": "7",
    }

    answers = {operation: operation.ask(nobody, ids) for operation in operations(document)}

    for operation, answer in answers.items():
        if operation.needs_key:
            assert (answer.status_code, answer.mimetype) == (401, "application/problem+json"), operation.id
            assert answer.get_json()["code"] == "auth.unauthorized"
    opened = {operation.id for operation in answers if not operation.needs_key}
    assert opened == {"health.health", "health.live"}
    assert all(answer.status_code == 200 for operation, answer in answers.items() if not operation.needs_key)


@pytest.mark.feature("S4-61")
@pytest.mark.parametrize("key", ["", "wrong", "hl_00000000_" + "a" * 43, "ä" * 50])
def test_a_wrong_key_is_401_in_the_same_words(nobody: Client, key: str) -> None:
    answer = nobody.get("/v1/jobs", headers={"Authorization": f"Bearer {key}".encode().decode("latin-1")})

    assert answer.status_code == 401
    assert answer.get_json()["detail"] == "the API key is missing or not valid"


@pytest.mark.feature("S0-31", "S1-12")
def test_every_route_with_another_tenants_id_is_404(
    stranger: Client, admin: Client, sessions: Sessions, web_services: Services, document: dict[str, Any]
) -> None:
    ids = _things_of(admin, sessions, web_services)

    asked = [operation for operation in operations(document) if ids.keys() & set(operation.parameters)]
    answers = {operation.id: operation.ask(stranger, ids) for operation in asked}
    own = {operation.id: operation.ask(admin, ids) for operation in asked if operation.method == "GET"}

    assert len(asked) > 15
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 404)
    assert all(answer.mimetype == "application/problem+json" for answer in answers.values())
    assert {name: answer.status_code for name, answer in own.items() if answer.status_code != 200} == {
        "jobs.result": 409  # it has not ended
    }


def _things_of(admin: Client, sessions: Sessions, services: Services) -> dict[str, str]:
    """One of each thing that has an id."""
    job_id = admin.post("/v1/jobs", {"type": "echo"}).get_json()["id"]
    schedule_id = admin.post("/v1/schedules", {"name": "nightly", "template": {"type": "echo"}}).get_json()["id"]
    upload_id = admin.post("/v1/uploads", {"filename": "a.csv", "parts": 2}).get_json()["id"]
    table = {"name": "orders", "columns": [{"name": "id", "type": "bigint"}], "key": ["id"]}
    name = admin.post("/v1/tables", table).get_json()["name"]
    key_id = admin.post("/v1/keys", {"label": "another"}).get_json()["id"]
    book = admin.post("/v1/workbooks", {"name": "crm", "sheets": [{"sheet": "People", "table": "contacts"}]}).get_json()
    artifact = Artifact(
        id=uuid4(),
        job_id=UUID(job_id),
        tenant=admin.tenant,
        kind=ArtifactKind.EXPORT,
        name="a.csv",
        content_type="text/csv",
        ref=ObjectRef(services.settings.s3_bucket, "a.csv"),
        size_bytes=1,
    )
    S3Store(services.settings).put(artifact.ref, b"x", content_type="text/csv")
    with sessions.begin() as session:
        artifacts.put(session, admin.tenant, artifact)
        session.execute(
            text(
                "INSERT INTO failed_records (job_id, line, tenant, first_byte, end_byte, code, message)"
                " VALUES (:job, 2, :tenant, 0, 1, 'mine', 'mine')"
            ),
            {"job": job_id, "tenant": admin.tenant},
        )
    assert admin.post(f"/v1/tables/{name}/records:upsert", {"rows": [{"id": 7}]}).status_code == 200
    return {
        "job_id": job_id,
        "schedule_id": schedule_id,
        "upload_id": upload_id,
        "artifact_id": str(artifact.id),
        "key_id": key_id,
        "name": name,
        "workbook": book["name"],
        "line": "2",
        "record_id": "7",
    }


def test_a_body_of_50_mb_is_413(admin: Client) -> None:
    answer = admin.post("/v1/jobs", data=b"[" + b" " * 50_000_000 + b"]", content_type="application/json")

    assert answer.status_code == 413
    assert answer.mimetype == "application/problem+json"
    assert answer.get_json()["code"] == "request.too_large"


@pytest.mark.feature("S4-60")
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "request.malformed"),
        (b'{"type": "echo", "config": {"value": "\\u0000"}}', 400, "request.unstorable_text"),
        (b'{"type": "echo", "labels": {"a": "\\ud800"}}', 400, "request.unstorable_text"),
        (b'{"type": "echo", "config": ' + b'{"value":' * 5_000 + b"1" + b"}" * 5_001, 400, "request.too_deep"),
        (b'"text"', 422, "request.invalid"),
        (b'{"type": 5}', 422, "request.invalid"),
        (b'{"type": "echo", "unknown": 1}', 422, "request.invalid"),
    ],
)
def test_a_body_that_cannot_be_used_is_a_client_error(admin: Client, body: bytes, status: int, code: str) -> None:
    answer = admin.post("/v1/jobs", data=body, content_type="application/json")

    assert (answer.status_code, answer.get_json()["code"]) == (status, code)


def test_an_address_with_nul_is_refused(admin: Client) -> None:
    answer = admin.get("/v1/tables/a%00b")

    assert (answer.status_code, answer.get_json()["code"]) == (400, "request.unstorable_text")


def test_a_path_and_a_method_that_do_not_exist_are_problems(admin: Client) -> None:
    answers = [admin.get("/v1/nothing"), admin.delete("/v1/jobs")]

    assert [answer.status_code for answer in answers] == [404, 405]
    assert {answer.mimetype for answer in answers} == {"application/problem+json"}


def test_the_viewer_comes_with_the_server_and_asks_nobody_else(nobody: Client) -> None:
    root = nobody.get("/")
    page = nobody.get("/docs")
    script = nobody.get("/docs/static/rapidoc-min.js")
    script.close()

    assert (root.status_code, root.location) == (302, "/docs")
    assert page.status_code == script.status_code == 200
    assert "//" not in page.get_data(as_text=True).replace("<!doctype html>", "")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
    assert Path(app.api.docs.__file__).parent.joinpath("static", "rapidoc-min.js.LICENSE.txt").is_file()


@pytest.mark.feature("S0-17")
def test_an_error_says_what_to_do_and_its_type_leads_to_where_its_code_is_told_about(
    admin: Client, nobody: Client
) -> None:
    problem = admin.get(f"/v1/jobs/{uuid4()}").get_json()

    page = nobody.get(problem["type"].partition("#")[0])

    assert problem["hint"] == REMEDIES["job.not_found"]
    assert f'<tr id="{problem["code"]}">' in page.get_data(as_text=True)


def test_the_viewers_folder_gives_nothing_else_away(nobody: Client) -> None:
    answers = [nobody.get(f"/docs/static/{name}") for name in ("../docs.py", "%2e%2e/docs.py", "nothing.js")]

    assert {answer.status_code for answer in answers} == {404}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
def test_no_generated_request_breaks_the_server(admin: Client, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", admin.app)
    asked: Counter[str] = Counter()

    for found in schema.get_all_operations():
        _ask_at_random(found.ok(), admin, mode, asked)

    assert asked.total() > 100


def _ask_at_random(operation: Any, admin: Client, mode: GenerationMode, asked: Counter[str]) -> None:
    """A few requests to one operation, the same in every run; nothing when it has nothing to be wrong."""

    @property_settings(
        max_examples=3,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if isinstance(case.query, dict):
            case.query.pop("wait", None)  # no worker runs: a wait would only take its time
        asked[operation.label] += 1
        case.call_and_validate(checks=[not_a_server_error], headers={"X-API-Key": admin.key})

    with suppress(Unsatisfiable):
        ask()


def test_a_ticket_is_what_the_document_says(admin: Client, document: dict[str, Any]) -> None:
    answer = admin.post("/v1/uploads", {"filename": "a.csv"}).get_json()

    assert set(answer) == set(document["components"]["schemas"]["Ticket"]["properties"])
    assert {"id", "s3_key", "url", "expires_at"} <= set(json.loads(json.dumps(answer)))
