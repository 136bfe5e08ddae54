"""How the search server is spoken to: credentials, patience, and requests that are too large."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.dataplane.mirror.documents import alias_of, hash_of, mapping_of
from app.dataplane.mirror.server import IndexMissingError, Operation, SearchServer, read_json
from app.domain.clock import SystemClock
from app.domain.errors import JobError, TransientError
from app.domain.tables import CONTACTS
from config.settings import Settings
from tests.loopback import Loopback, answering, servers
from tests.search_server import SearchDouble, search_server

INDEX = "haulier-default-contacts-1"


class Job:
    """Nobody stops it."""

    id = "job"
    cancelled = False
    clock = SystemClock()

    def __init__(self) -> None:
        self.waits: list[float] = []


@pytest.fixture
def search() -> Iterator[SearchDouble]:
    with search_server() as double:
        yield double


@pytest.fixture
def start() -> Iterator[Callable[..., Loopback]]:
    with servers() as starting:
        yield starting


def client(url: str, job: Job | None = None, **settings: Any) -> SearchServer:
    job = job or Job()
    given: Any = job
    return SearchServer(Settings(mirror_url=url, **settings), given, job.waits.append)


def a_server(search: SearchDouble, **settings: Any) -> SearchServer:
    """With an index."""
    server = client(search.url, **settings)
    server.make(INDEX, mapping_of(CONTACTS))
    return server


def documents(search: SearchDouble) -> dict[str, str | None]:
    return {name: text for name, (_, text) in search.indexes[INDEX].documents.items()}


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({}, None),
        ({"mirror_user": "haulier", "mirror_password": "hush"}, "Basic aGF1bGllcjpodXNo"),
        ({"mirror_api_key": "a2V5", "mirror_user": "nobody"}, "ApiKey a2V5"),
    ],
)
def test_requests_bear_the_credentials(search: SearchDouble, settings: dict[str, str], header: str | None) -> None:
    a_server(search, **settings)

    assert search.server.seen[0].headers.get("authorization") == header


def test_an_older_version_changes_nothing_not_even_what_was_deleted(search: SearchDouble) -> None:
    server = a_server(search)

    server.write(INDEX, [Operation("a", '{"id": 2}', 2), Operation("b", None, 2)])
    refused = server.write(INDEX, [Operation("a", '{"id": 1}', 1), Operation("b", '{"id": 1}', 1)])

    assert (refused, documents(search)) == ({}, {"a": '{"id": 2}', "b": None})


def test_a_request_that_is_too_large_is_halved_down_to_the_document_at_fault(search: SearchDouble) -> None:
    server = a_server(search)
    search.most_bytes = 400
    operations = [Operation(str(n), json.dumps({"title": "x" * (500 if n == 3 else 50)}), 1) for n in range(7)]

    refused = server.write(INDEX, operations)

    assert {place: refusal.code for place, refusal in refused.items()} == {3: "mirror.too_large"}
    assert sorted(documents(search)) == ["0", "1", "2", "4", "5", "6"]


def test_documents_go_in_requests_of_a_bounded_size(search: SearchDouble) -> None:
    server = a_server(search, mirror_bulk_bytes=1024)

    server.write(INDEX, [Operation(str(n), json.dumps({"title": "x" * 300}), 1) for n in range(10)])

    assert sum("_bulk" in seen.path for seen in search.server.seen) == 4
    assert len(documents(search)) == 10


def test_only_what_was_put_off_is_sent_again(search: SearchDouble) -> None:
    server = a_server(search)
    search.put_off = {"b"}

    refused = server.write(INDEX, [Operation(name, "{}", 1) for name in "abc"])

    assert refused == {}
    assert search.server.seen[-1].body.count(b"\n") == 2
    assert sorted(documents(search)) == ["a", "b", "c"]


def test_an_index_that_is_gone_is_not_made_by_a_write(search: SearchDouble) -> None:
    server = a_server(search)
    server.remove(INDEX)

    with pytest.raises(IndexMissingError):
        server.write(INDEX, [Operation("a", "{}", 1)])

    assert search.indexes == {}


def test_patience_doubles_its_waits_heeds_retry_after_and_ends(start: Callable[..., Loopback]) -> None:
    server, slow, job = start(answering(status=503)), start(answering(status=429, retry_after="7")), Job()

    with pytest.raises(TransientError) as away:
        client(server.url(""), job, mirror_patience_s=1.0).remove(INDEX)
    with pytest.raises(TransientError) as busy:
        client(slow.url(""), mirror_patience_s=1.0).remove(INDEX)

    assert job.waits[:2] == [0.25, 0.5]
    assert (away.value.code, busy.value.code) == ("mirror.unavailable", "mirror.unavailable")
    assert busy.value.retry_after_s == 7.0


def test_what_will_not_pass_is_told_at_once(start: Callable[..., Loopback]) -> None:
    body = b'{"error": {"type": "security_exception", "reason": "missing credentials"}, "status": 401}'
    server = start(answering(body, 401))

    with pytest.raises(JobError) as raised:
        client(server.url("")).remove(INDEX)

    assert raised.value.code == "mirror.failed"
    assert raised.value.detail.endswith("401 (security_exception: missing credentials)")
    assert len(server.seen) == 1


def test_names_of_tenants_and_tables_cannot_meet_in_an_alias() -> None:
    assert alias_of("haulier", "a_b", "c") != alias_of("haulier", "a", "b_c")


def test_equal_numbers_have_equal_checksums_and_other_contents_others() -> None:
    one, same, other, text = (
        hash_of("a", read_json(f'{{"x": {value}, "y": null}}')) for value in ("1.50", "1.5", "1.51", '"1.5"')
    )

    assert one == same
    assert len({one, other, text, hash_of("b", read_json('{"x": 1.5, "y": null}'))}) == 4


@pytest.mark.parametrize("url", ["ftp://search", "http://user:hush@search", "search:9200", "http://search/?pretty"])
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="mirror_url"):
        Settings(mirror_url=url)
