"""A double of a search server: how Elasticsearch 8 and OpenSearch 2 answer a mirror's requests, and their faults.

Kept are the rules that a mirror rests on: external versions (deletions are remembered), ``require_alias``, an index
that a write makes where that is not asked, scrolls over what stood there and was refreshed when they began, aliases
that switch at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from threading import RLock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.loopback import Loopback

Documents = dict[str, tuple[int, str | None]]


class _Error(Exception):
    def __init__(self, status: int, kind: str, reason: str, cause: str | None = None) -> None:
        super().__init__(reason)
        caused = {"caused_by": {"type": "illegal_argument_exception", "reason": cause}} if cause else {}
        self.status, self.body = status, {"type": kind, "reason": reason, **caused}


@dataclass
class Index:
    """Documents by id, with their versions; ``None`` is one that was deleted."""

    mapping: dict[str, Any]
    documents: Documents = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)


class SearchDouble:
    """The server.

    Attributes:
        faults: What the next requests meet, one each: a status, ``cut`` before or ``cut after`` they had their effect.
        put_off: Ids that are answered 429 once.
        most_bytes: A larger request is answered 413.
        before_bulk: Called before documents are written.
    """

    def __init__(self) -> None:
        self.indexes: dict[str, Index] = {}
        self.aliases: dict[str, set[str]] = {}
        self.faults: list[int | str] = []
        self.put_off: set[str] = set()
        self.most_bytes = 10**9
        self.before_bulk: Callable[[], object] = lambda: None
        self._scrolls: dict[str, Iterator[list[str]]] = {}
        self._lock = RLock()
        self.server = Loopback(self._answer)
        self.url = self.server.url("")

    def found(self, alias: str) -> dict[str, Any]:
        """The documents behind an alias, by id."""
        [index] = self.aliases[alias]
        return {name: json.loads(text) for name, (_, text) in self.indexes[index].documents.items() if text is not None}

    # Answers

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault == "cut":
            return
        if isinstance(fault, int):
            status, answer = fault, {"error": {"type": "es_rejected_execution_exception", "reason": "too busy"}}
        else:
            status, answer = self._answered(handler)
        if fault == "cut after":
            return
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _answered(self, handler: BaseHTTPRequestHandler) -> tuple[int, Any]:
        body = self.server.seen[-1].body
        parts = urlsplit(handler.path)
        path = [part for part in parts.path.split("/") if part]
        if path[-1] == "_bulk":
            self.before_bulk()
        try:
            with self._lock:
                return 200, self._route(handler.command, path, body, parse_qs(parts.query))
        except _Error as error:
            return error.status, {"error": error.body, "status": error.status}

    def _route(self, method: str, path: list[str], body: bytes, query: dict[str, list[str]]) -> Any:
        match method, path:
            case "POST", [alias, "_bulk"]:
                return self._bulk(alias, body, query)
            case "POST", ["_aliases"]:
                return self._switch(json.loads(body)["actions"])
            case "GET", ["_alias", alias]:
                if not self.aliases.get(alias):
                    raise _Error(404, "aliases_not_found_exception", f"alias [{alias}] missing")
                return {name: {"aliases": {alias: {}}} for name in self.aliases[alias]}
            case "PUT", [name]:
                return self._make(name, json.loads(body))
            case "PUT", [name, "_mapping"]:
                return self._widen(self._index(name), json.loads(body))
            case "DELETE", ["_search", "scroll"]:
                return {"succeeded": all(self._scrolls.pop(one, None) for one in json.loads(body)["scroll_id"])}
            case "DELETE", [name]:
                self._index(name)
                del self.indexes[name]
                self.aliases = {alias: held - {name} for alias, held in self.aliases.items() if held - {name}}
                return {"acknowledged": True}
            case "POST", [name, "_refresh"]:
                index = self._index(name)
                index.seen = {id_: text for id_, (_, text) in index.documents.items() if text is not None}
                return {}
            case "POST", [name, "_search"]:
                return self._search(self._index(name), json.loads(body)["size"])
            case "POST", ["_search", "scroll"]:
                return self._page(json.loads(body)["scroll_id"])
        raise _Error(405, "method_not_allowed", f"{method} {path}")

    def _index(self, name: str) -> Index:
        if name not in self.indexes:
            raise _Error(404, "index_not_found_exception", f"no such index [{name}]")
        return self.indexes[name]

    def _make(self, name: str, body: dict[str, Any]) -> Any:
        if name in self.indexes:
            raise _Error(400, "resource_already_exists_exception", f"index [{name}] already exists")
        if name in self.aliases:
            raise _Error(400, "invalid_index_name_exception", "already exists as alias")
        self.indexes[name] = Index(body["mappings"])
        for alias in body["aliases"]:
            self.aliases.setdefault(alias, set()).add(name)
        return {"acknowledged": True}

    @staticmethod
    def _widen(index: Index, mapping: dict[str, Any]) -> Any:
        known = index.mapping["properties"]
        for name, kind in mapping["properties"].items():
            if known.get(name, kind)["type"] != kind["type"]:
                raise _Error(400, "illegal_argument_exception", f"mapper [{name}] cannot be changed")
        known.update(mapping["properties"])
        return {"acknowledged": True}

    def _switch(self, actions: list[dict[str, Any]]) -> Any:
        for action in actions:
            [(kind, one)] = action.items()
            self._index(one["index"])
            held = self.aliases.setdefault(one["alias"], set())
            held.add(one["index"]) if kind == "add" else held.discard(one["index"])
        return {"acknowledged": True}

    # Documents

    def _bulk(self, alias: str, body: bytes, query: dict[str, list[str]]) -> Any:
        if len(body) > self.most_bytes:
            raise _Error(413, "content_too_long", "too long")
        lines = iter(body.decode().splitlines())
        items = []
        for line in lines:
            [(kind, action)] = json.loads(line).items()
            document = next(lines) if kind == "index" else None
            try:
                told = self._write(self._written_to(alias, query), kind, action, document)
            except _Error as error:
                told = {"status": error.status, "error": error.body}
            items.append({kind: {"_id": action["_id"], **told}})
        return {"items": items}

    def _written_to(self, alias: str, query: dict[str, list[str]]) -> Index:
        if query.get("require_alias") == ["true"]:
            if not self.aliases.get(alias):
                raise _Error(404, "index_not_found_exception", f"[{alias}] is not an alias")
            return self.indexes[next(iter(self.aliases[alias]))]
        return self.indexes.setdefault(alias, Index({"properties": {}}))

    def _write(self, index: Index, kind: str, action: dict[str, Any], document: str | None) -> dict[str, Any]:
        name = action["_id"]
        if name in self.put_off:
            self.put_off.remove(name)
            raise _Error(429, "es_rejected_execution_exception", "queue is full")
        if not 1 <= len(name.encode()) <= 512:
            raise _Error(400, "illegal_argument_exception", "id is too long")
        if document is not None:
            self._check(index, json.loads(document))
        version, before = index.documents.get(name, (0, None))
        if action["version"] <= version:
            raise _Error(409, "version_conflict_engine_exception", "current version is higher")
        index.documents[name] = (action["version"], document)
        if kind == "delete" and before is None:
            return {"status": 404, "result": "not_found"}
        return {"status": 201 if before is None else 200, "result": "done"}

    @staticmethod
    def _check(index: Index, document: dict[str, Any]) -> None:
        for name, value in document.items():
            kind = index.mapping["properties"].get(name, {}).get("type")
            try:
                if value is not None and kind in {"long", "double"}:
                    float({"NaN": "refused"}.get(value, value))
                elif value is not None and kind == "date":
                    datetime.fromisoformat(value)
            except ValueError as error:
                raise _Error(
                    400, "document_parsing_exception", f"failed to parse field [{name}] of type [{kind}]", str(error)
                ) from None

    def _search(self, index: Index, size: int) -> Any:
        # As it was sent, to the last digit.
        hits = [f'{{"_id":{json.dumps(name)},"_source":{text}}}' for name, text in sorted(index.seen.items())]
        scroll = f"scroll{len(self._scrolls)}"
        self._scrolls[scroll] = iter([hits[begin : begin + size] for begin in range(0, len(hits), size)])
        return self._page(scroll)

    def _page(self, scroll: str) -> bytes:
        hits = ",".join(next(self._scrolls[scroll], []))
        return f'{{"_scroll_id":"{scroll}","hits":{{"hits":[{hits}]}}}}'.encode()


@contextmanager
def search_server() -> Iterator[SearchDouble]:
    """A server that ends with the block."""
    double = SearchDouble()
    try:
        yield double
    finally:
        double.server.close()
