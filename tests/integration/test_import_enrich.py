"""``enrich``: columns of an import that a service fills, over HTTP and by a provider of another package."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import InvalidRequestError, PermanentError
from app.domain.ports import ObjectStore
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from config.settings import Settings
from tests.integration.imports import ImportingAny
from tests.integration.packages import install
from tests.integration.test_import_csv import THINGS, books
from tests.integration.test_import_shaping import checked, things
from tests.loopback import Loopback, servers

BODY = "id,name,note\n1,ada,\n2,grace,mine\n3,ada,\n4,,\n5,eve,\n6,bob,\n"
KNOWN: dict[str, Any] = {
    "ada": {"firm": {"title": "Analytical\tEngines"}, "score": 9.5},
    "grace": {"firm": {"title": "Navy"}},
    "eve": {"error": "eve is unknown to us"},
}
PROVIDER = """
from haulier import Enricher, JobConfig, Unenriched

class Config(JobConfig):
    suffix: str

asked = []

def look_up(job, config, rows):
    asked.append(len(rows))
    return [Unenriched("no") if row["name"] == "eve" else {"note": row["name"] + config.suffix} for row in rows]

MINE = Enricher(Config, look_up, "Adds a suffix")
"""
Serve = Callable[..., Loopback]


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> ImportingAny:
    opened = settings.model_copy(update={"allow_private_hosts": ("127.0.0.0/8",)})
    importing = ImportingAny(opened, sessions, objects)
    columns = tuple(replace(column, required=False) for column in THINGS.columns)
    Tables(sessions).declare("default", replace(THINGS, columns=columns))
    return importing


@pytest.fixture
def serve(imports: ImportingAny) -> Iterator[Serve]:
    with servers() as start:

        def started(answer: Callable[[BaseHTTPRequestHandler], object]) -> Loopback:
            server = start(answer)
            imports.settings = imports.settings.model_copy(update={"outgoing_ports": frozenset({server.port})})
            return server

        yield started


def answering(server_seen: Callable[[], Loopback]) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        records = json.loads(server_seen().seen[-1].body)["records"]
        give(handler, {"records": [KNOWN.get(record["name"]) for record in records]})

    return answer


def give(handler: BaseHTTPRequestHandler, value: Any, status: int = 200) -> None:
    body = json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def asking(url: str, **more: Any) -> list[dict[str, Any]]:
    fields = {"note": "firm.title", "amount": "score"}
    return [{"provider": "http", "key": ["name"], "fields": fields, "config": {"url": url}, **more}]


@pytest.mark.feature("S2-30")
def test_a_service_fills_columns_and_is_asked_once_for_a_key(imports: ImportingAny, serve: Serve) -> None:
    held: list[Loopback] = []
    held.append(serve(answering(lambda: held[0])))

    result = imports.load(BODY, enrich=asking(held[0].url(), batch_size=3))

    asked = [[record["name"] for record in json.loads(one.body)["records"]] for one in held[0].seen]
    assert asked == [["ada", "bob", "eve"], ["grace"]]
    assert things(imports, "id, name, note, amount::float") == [
        (1, "ada", "Analytical\tEngines", 9.5),
        (2, "grace", "mine", None),
        (3, "ada", "Analytical\tEngines", 9.5),
        (4, None, None, None),
        (6, "bob", None, None),
    ]
    assert imports.rows("SELECT line, code, field, message FROM failed_records") == [
        (6, "enrich.failed", "note", "http: eve is unknown to us")
    ]
    assert books(result) == {"read": 6, "loaded": 5, "failed": 1}


@pytest.mark.feature("S2-30")
@pytest.mark.parametrize(
    ("status", "value", "calls", "said"),
    [
        (503, {}, 3, "503"),
        (401, {}, 1, "401"),
        (200, {"records": []}, 1, "asked for 4 rows and answered 0"),
        (200, {"what": 1}, 1, "expected a JSON list of records"),
        (200, [1, 2, 3, 4], 1, "expected an object, got int"),
        (200, [{"score": "a\0b"}, {"score": "\ud800"}, {"error": "\ud800"}, None], 1, "a NUL character"),
    ],
)
def test_a_service_that_fails_refuses_the_rows_and_not_the_job(
    imports: ImportingAny, serve: Serve, monkeypatch: pytest.MonkeyPatch, status: int, value: Any, calls: int, said: str
) -> None:
    monkeypatch.setattr("app.dataplane.enriching._FIRST_WAIT_S", 0.01)
    server = serve(lambda handler: give(handler, value, status))

    result = imports.load(BODY, enrich=asking(server.url()), max_error_rate=1.0)

    assert books(result)["failed"] >= 4
    assert len(server.seen) == calls
    assert said in imports.rows("SELECT message FROM failed_records ORDER BY line LIMIT 1")[0][0]


def test_an_address_that_may_not_be_called_fails_the_job(imports: ImportingAny) -> None:
    with pytest.raises(PermanentError) as raised:
        imports.load(BODY, enrich=asking("http://169.254.169.254/"))

    assert (raised.value.code, things(imports)) == ("ERR_URL_FORBIDDEN", [])


@pytest.mark.feature("S2-30", "S2-103")
def test_a_provider_of_another_package_is_asked_and_a_dry_run_asks_none(
    imports: ImportingAny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_provider.py").write_text(PROVIDER)
    install(tmp_path, "my-provider", {"haulier.enrichers": {"mine": "my_provider:MINE"}})
    spec = {"provider": "mine", "key": ["name"], "fields": ["note"], "config": {"suffix": "!"}, "overwrite": True}
    config = {"enrich": [spec], "rules": [{"rule": "required", "column": "note"}]}

    looked = imports.load(BODY, validate_only=True, **config).data
    asked_by_the_look = len(sys.modules["my_provider"].asked) if "my_provider" in sys.modules else 0
    imports.load(BODY, **config)

    sys.modules.pop("my_provider")
    assert asked_by_the_look == 0
    assert looked["not_checked"][:2] == [
        "enrich by mine: no service is asked",
        "rule required of note: a service fills it",
    ]
    assert things(imports, "id, note") == [(1, "ada!"), (2, "grace!"), (3, "ada!"), (6, "bob!")]
    assert [entry[:2] for entry in imports.ledger()] == [(5, "rule.required"), (6, "enrich.failed")]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"provider": "nobody"}, "/config/enrich/0/provider"),
        ({"config": {}}, "/config/enrich/0/config"),
        ({"config": {"url": "ftp://x"}}, "/config/enrich/0/config"),
        ({"config": {"url": "http://x.example", "headers": {"Host": "y"}}}, "/config/enrich/0/config"),
        ({"fields": ["nowhere"]}, "/config/enrich/0/fields"),
        ({"fields": {}}, "/config/enrich/0/fields"),
    ],
)
def test_a_provider_that_cannot_be_asked_is_refused_at_submit(
    imports: ImportingAny, changes: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        checked(imports, enrich=[{**asking("http://x.example/")[0], **changes}])

    assert {problem.pointer for problem in raised.value.problems} == {pointer}


def test_a_provider_that_is_not_there_is_answered_with_those_that_are(imports: ImportingAny) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        checked(imports, enrich=[{**asking("http://x.example/")[0], "provider": "htp"}])

    assert [problem.detail for problem in raised.value.problems] == ["there is no enricher 'htp'; known are http"]


def test_what_a_service_fills_cannot_be_unique(imports: ImportingAny) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        checked(imports, enrich=asking("http://x.example/"), rules=[{"rule": "unique", "columns": ["note"]}])

    assert raised.value.problems[0].pointer == "/config/rules/0"
