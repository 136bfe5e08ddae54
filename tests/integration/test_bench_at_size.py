"""The measurements at size, at a small one: they send, read and count what they say."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from app.bootstrap import Services
from app.domain.ports import ObjectRef
from app.storage.s3 import S3Store
from tests.bench.export_bench import FILL
from tests.bench.large_bench import STORED, walk
from tests.bench.large_files import bring, header
from tests.conftest import BUCKET
from tests.integration.conftest import Client

NEWEST_FIRST = [{"order_by": "created_at", "order_direction": "desc"}]


def asking(client: Client) -> Callable[..., Any]:
    def ask(method: str, path: str, body: Any = None, /) -> Any:
        answer = client.call(method, path, json=body)
        assert answer.status_code == 200, answer.get_json()
        return answer.get_json()

    return ask


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_as_large_as_asked_for_and_holds_the_rows_it_is_said_to(objects: S3Store, *, packed: bool) -> None:
    place = ObjectRef(BUCKET, "uploads/large")

    rows = bring(objects, place, megabytes=1, packed=packed, block_rows=1000)

    with objects.open(place) as reader:
        stored = reader.read()
    content = gzip.decompress(stored) if packed else stored
    assert 1_000_000 <= len(stored) < 1_400_000
    assert content.startswith(header())
    assert content.count(b"\n") == rows + 1


@pytest.mark.feature("S4-36")
@pytest.mark.parametrize("order", [[], NEWEST_FIRST])
def test_every_page_is_read_once_to_the_last(
    member: Client, web_services: Services, order: list[dict[str, str]]
) -> None:
    web_services.tables.declare("default", STORED)
    with web_services.sessions.begin() as session:
        session.execute(text(FILL), {"rows": 95})

    took_ms = walk(asking(member), STORED.name, order, rows=95, page_rows=10)

    assert len(took_ms) == 10
    with pytest.raises(SystemExit, match="there are 95 of 96 rows"):
        walk(asking(member), STORED.name, order, rows=96, page_rows=10)
