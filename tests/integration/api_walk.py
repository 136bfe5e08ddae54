"""Every operation of the OpenAPI document, with a request that is right but for who sends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.integration.conftest import Client

BODIES: dict[str, Any] = {
    "jobs.Jobs.post": {"type": "echo"},
    "bulk.create": {"jobs": [{"type": "echo"}]},
    "batches.create": {"payloads": [{"type": "echo"}]},
    "pipelines.create": {"name": "nightly", "stages": [{"name": "one", "type": "echo"}]},
    "runs.run": {"type": "echo", "wait_s": 0},
    "batches.Children.post": {"payloads": [{"type": "echo"}]},
    "schedules.Schedules.post": {"name": "nightly", "template": {"type": "echo"}},
    "schedules.Schedule.patch": {"name": "weekly"},
    "schedules.preview": {"rules": {"cron": "0 2 * * *"}},
    "jobs.query": {},
    "jobs.retry": {},
    "jobs.resume": {},
    "jobs.batch_get": {"ids": [str(uuid4())]},
    "tables.Tables.post": {"name": "things", "columns": [{"name": "id", "type": "bigint"}], "key": ["id"]},
    "inference.infer": {"name": "things", "source": {"text": "id,name\n1,one\n"}},
    "records.query": {},
    "records.count": {},
    "records.explain": {},
    "records.preview": {},
    "queries.ask": {"table": "contacts"},
    "records.upsert": {"rows": [{"first_name": "Ada"}]},
    "uploads.create": {"filename": "a.csv"},
    "uploads.complete": {"parts": [{"number": 1, "etag": "x"}]},
    "keys.Keys.post": {},
    "failed_records.replay": {},
    "failed_records.correct": {"raw": "1,one"},
    "failed_records.correct_by_file": {"text": "line,id\n1,one\n"},
    "queues.set_concurrency": {"slots": 2},
    "line_keys.LineKeys.post": {"name": "k1", "key": "A" * 43 + "="},
    "sinks.Sink.put": {"bucket": "theirs", "access_key_id": "a", "secret_access_key": "b"},
    "workbooks.Workbooks.post": {"name": "crm", "sheets": [{"sheet": "People", "table": "contacts"}]},
    "workbooks.Workbook.patch": {"sheets": [{"sheet": "People", "table": "contacts"}]},
    "limits.Limit.put": {"max_concurrency": 1},
}
"""Least bodies of the operations that take one."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    id: str
    method: str
    path: str
    parameters: tuple[str, ...]
    needs_key: bool

    def ask(self, client: Client, ids: Mapping[str, str]) -> Any:
        """Send it with ``ids`` in its path; an operation that is not known here cannot be asked."""
        path = self.path
        for name in self.parameters:
            path = path.replace(f"{{{name}}}", ids[name])
        return client.call(self.method, path, **({"json": BODIES[self.id]} if self.takes_body else {}))

    @property
    def takes_body(self) -> bool:
        """Whether it is among those with a body."""
        return self.id in BODIES


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    """Every operation of the document."""
    for path, item in document["paths"].items():
        shared = item.get("parameters", [])
        for method, operation in item.items():
            if method == "parameters":
                continue
            assert ("requestBody" in operation) == (operation["operationId"] in BODIES), operation["operationId"]
            names = [one["name"] for one in [*shared, *operation.get("parameters", [])] if one.get("in") == "path"]
            yield Operation(
                id=operation["operationId"],
                method=method.upper(),
                path=path,
                parameters=tuple(names),
                needs_key=operation.get("security") != [],
            )
