"""What is asked of the search server, in the words that Elasticsearch 8 and OpenSearch 2 have in common."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from time import monotonic
from typing import Any, Final, TypeVar

from app.dataplane.context import ImportContext
from app.domain.errors import JobError, TransientError
from app.security.outgoing.calls import Call
from app.security.outgoing.faults import unexpected_status
from app.security.outgoing.guard import Outgoing
from config.settings import Settings

_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"
_MOST_ANSWER_BYTES: Final = 256 * 2**20
_FIRST_WAIT_S: Final = 0.25
_LONGEST_WAIT_S: Final = 10.0
_TOLD: Final = "items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
_SCROLL: Final = "5m"
_PAGE: Final = 500
_OK, _BAD, _NOT_FOUND, _CONFLICT, _TOO_LARGE, _TOO_MANY, _BROKEN = 200, 400, 404, 409, 413, 429, 500
_USUAL_FIELDS: Final = 1_000
_LONGEST_REASON: Final = 1_000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Operation:
    """A document that is to be written, or deleted when it is ``None``.

    Args:
        version: One with a lower version than the document has changes nothing.
        times: How many changes of rows it stands for.
    """

    id: str
    document: str | None
    version: int
    times: int = 1

    @property
    def lines(self) -> bytes:
        """As ``_bulk`` takes it."""
        kind = "delete" if self.document is None else "index"
        action = json.dumps({kind: {"_id": self.id, "version": self.version, "version_type": "external"}})
        return f"{action}\n".encode() if self.document is None else f"{action}\n{self.document}\n".encode()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the server does not take a document, whatever is done again."""

    code: str
    message: str


class IndexMissingError(JobError):
    """An index that was made is not there any more."""

    code = "mirror.index_missing"


def write_alias(index: str) -> str:
    """By what an index is written to: a server makes an index that is missing by itself, but never an alias."""
    return f"{index}-w"


class SearchServer:
    """The installation's search server.

    Each request is made again while the server cannot be reached or has too much to do, for
    ``HAULIER_MIRROR_PATIENCE_S``.

    Args:
        wait: Sleeps, or raises when the work is to stop.

    Every method raises ``TransientError`` (``mirror.unavailable``) when the patience is over, and ``JobError``
    (``mirror.failed``) when the server refuses for good.
    """

    def __init__(self, settings: Settings, job: ImportContext, wait: Callable[[float], None]) -> None:
        self._url = settings.mirror_url or ""
        self._headers = _credentials(settings)
        self._timeout_s = settings.mirror_timeout_s
        self._patience_s = settings.mirror_patience_s
        self._bulk_bytes = settings.mirror_bulk_bytes
        self._job = job
        self._wait = wait
        self._outgoing = Outgoing.to_configured(self._url, ca_file=settings.mirror_ca_file)

    # Indexes

    def make(self, index: str, mapping: Mapping[str, Any]) -> None:
        """Make an index; one that is there already stays."""
        # A deletion is remembered for long: an older document that comes late must not bring the row back.
        fields = {"limit": max(_USUAL_FIELDS, 2 * len(mapping["properties"]) + 100)}
        body = {
            "settings": {"index": {"gc_deletes": "1h", "mapping": {"total_fields": fields}}},
            "mappings": mapping,
            "aliases": {write_alias(index): {}},
        }
        status, answer = self._ask("PUT", f"/{index}", body, accepts=(_BAD,))
        if status == _BAD and _type_of(answer) != "resource_already_exists_exception":
            raise _refused(status, answer)

    def widen(self, index: str, mapping: Mapping[str, Any]) -> None:
        """Tell an index of columns that came since.

        Raises:
            IndexMissingError: Somebody removed it.
        """
        status, _ = self._ask("PUT", f"/{index}/_mapping", dict(mapping), accepts=(_NOT_FOUND,))
        if status == _NOT_FOUND:
            raise IndexMissingError(f"the search server has no index {index} any more")

    def point(self, alias: str, index: str) -> None:
        """Have an alias lead to this index alone, from one moment to the next."""
        status, answer = self._ask("GET", f"/_alias/{alias}", accepts=(_NOT_FOUND,))
        holders = [name for name in answer if name != index] if status == _OK else []
        actions: list[dict[str, Any]] = [{"remove": {"index": name, "alias": alias}} for name in holders]
        self._ask("POST", "/_aliases", {"actions": [*actions, {"add": {"index": index, "alias": alias}}]})

    def remove(self, index: str) -> None:
        """Remove an index; one that is not there is fine."""
        self._ask("DELETE", f"/{index}", accepts=(_NOT_FOUND,))

    # Documents

    def write(self, index: str, operations: Sequence[Operation]) -> dict[int, Refusal]:
        """Write documents; those that the server refuses, by place. Documents that are newer there stay.

        Raises:
            IndexMissingError: The index is gone.
        """
        refused: dict[int, Refusal] = {}
        for piece in _pieces(operations, self._bulk_bytes):
            self._write_piece(index, piece, refused)
        return refused

    def _write_piece(self, index: str, piece: list[tuple[int, Operation]], refused: dict[int, Refusal]) -> None:
        waiting = list(piece)
        if self._patiently(lambda: self._bulk(index, waiting, refused)):
            return
        if len(waiting) == 1:
            message = "it is larger than the search server takes (http.max_content_length)"
            refused[waiting[0][0]] = Refusal(code="mirror.too_large", message=message)
            return
        half = len(waiting) // 2
        self._write_piece(index, waiting[:half], refused)
        self._write_piece(index, waiting[half:], refused)

    def _bulk(self, index: str, waiting: list[tuple[int, Operation]], refused: dict[int, Refusal]) -> bool:
        """Write what waits; what is to be written again goes on waiting. False when it is too much at once."""
        path = f"/{write_alias(index)}/_bulk?require_alias=true&filter_path={_TOLD}"
        body = b"".join(operation.lines for _, operation in waiting)
        status, answer = self._call("POST", path, body, _NDJSON, accepts=(_TOO_LARGE,))
        if status == _TOO_LARGE:
            return False
        items = answer.get("items", [])
        if len(items) != len(waiting):
            raise JobError(f"{len(waiting)} documents were sent, {len(items)} were answered", code="mirror.failed")
        again = []
        for (place, operation), item in zip(waiting, items, strict=True):
            [told] = item.values()
            fate = _fate(told, is_deletion=operation.document is None)
            if fate == "again":
                again.append((place, operation))
            elif isinstance(fate, Refusal):
                refused[place] = fate
        waiting[:] = again
        if again:
            raise TransientError(f"the search server put off {len(again)} documents", code="mirror.unavailable")
        return True

    def refresh(self, index: str) -> None:
        """Make all that was written visible to searches."""
        self._ask("POST", f"/{index}/_refresh")

    def documents(self, index: str) -> Iterator[list[tuple[str, Any]]]:
        """Id and content, as ``read_json`` gives it, of every document as of one moment, by pages."""
        body = {"size": _PAGE, "sort": ["_doc"], "query": {"match_all": {}}}
        _, answer = self._ask("POST", f"/{index}/_search?scroll={_SCROLL}", body)
        try:
            while hits := answer["hits"]["hits"]:
                yield [(hit["_id"], hit["_source"]) for hit in hits]
                _, answer = self._ask("POST", "/_search/scroll", {"scroll": _SCROLL, "scroll_id": answer["_scroll_id"]})
        finally:
            with suppress(JobError):
                self._ask("DELETE", "/_search/scroll", {"scroll_id": [answer["_scroll_id"]]}, accepts=(_NOT_FOUND,))

    # Requests

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, accepts: Sequence[int] = ()
    ) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        return self._patiently(lambda: self._call(method, path, data, _JSON, accepts=accepts))

    def _patiently(self, work: Callable[[], _T]) -> _T:
        until, wait_s = monotonic() + self._patience_s, _FIRST_WAIT_S
        while True:
            try:
                return work()
            except TransientError as error:
                pause_s = max(wait_s, error.retry_after_s or 0.0)
                if monotonic() + pause_s > until:
                    raise TransientError(
                        f"the search mirror is away: {error.detail}",
                        code="mirror.unavailable",
                        retry_after_s=error.retry_after_s,
                    ) from error
            self._wait(pause_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _call(
        self, method: str, path: str, body: bytes | None, kind: str, *, accepts: Sequence[int] = ()
    ) -> tuple[int, Any]:
        call = Call(
            method=method,
            url=f"{self._url}{path}",
            headers={**self._headers, **({"Content-Type": kind} if body is not None else {})},
            body=body,
            timeout_s=self._timeout_s,
            max_response_bytes=_MOST_ANSWER_BYTES,
        )
        with self._outgoing.send(call, job=self._job) as reply:
            status = reply.status
            content = b"".join(reply.chunks())
            passing = unexpected_status(status, reply.headers, now=self._job.clock.now())
        answer = _read(content)
        if _OK <= status < 300 or status in accepts:
            return status, answer
        raise passing if isinstance(passing, TransientError) else _refused(status, answer)


def _credentials(settings: Settings) -> dict[str, str]:
    if settings.mirror_api_key is not None:
        return {"Authorization": f"ApiKey {settings.mirror_api_key.get_secret_value()}"}
    if settings.mirror_user is None:
        return {}
    password = settings.mirror_password.get_secret_value() if settings.mirror_password else ""
    return {"Authorization": f"Basic {base64.b64encode(f'{settings.mirror_user}:{password}'.encode()).decode()}"}


def read_json(content: bytes | str) -> Any:
    """JSON in which numbers that are equal are equal: those with a point or an exponent come as text of one form."""
    return json.loads(content, parse_float=_number)


def _number(written: str) -> str:
    return f"number {Decimal(written).normalize()}"


def _read(content: bytes) -> Any:
    try:
        return read_json(content) if content else {}
    except ValueError:
        return {}


def _type_of(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("type", "")) if isinstance(error, dict) else str(error or "")


def _refused(status: int, answer: Any) -> JobError:
    error = answer.get("error") if isinstance(answer, dict) else None
    reason = error.get("reason", "") if isinstance(error, dict) else ""
    told = f" ({_type_of(answer)}: {reason})"[:_LONGEST_REASON] if error else ""
    return JobError(f"the search server answered {status}{told}", code="mirror.failed")


def _fate(told: Mapping[str, Any], *, is_deletion: bool) -> str | Refusal:
    """What becomes of an operation: ``done``, ``again``, or why it is refused.

    Raises:
        IndexMissingError: The index is gone; JobError: the server refuses for another reason than the document.
    """
    status, error = int(told.get("status", 0)), told.get("error")
    if _OK <= status < 300 or status == _CONFLICT:  # a conflict: what is there is this version, or newer
        return "done"
    if status == _NOT_FOUND and is_deletion and not error:
        return "done"
    if status == _NOT_FOUND:
        raise IndexMissingError("the search server has no such index any more")
    if status == _TOO_MANY or status >= _BROKEN:
        return "again"
    if status != _BAD:
        raise _refused(status, told)
    error = error if isinstance(error, dict) else {}
    cause = (error.get("caused_by") or {}).get("reason")
    parts = [error.get("type"), error.get("reason"), cause]
    message = ": ".join(str(part) for part in parts if part)[:_LONGEST_REASON]
    return Refusal(code="mirror.refused", message=message or "no reason is given")


def _pieces(operations: Sequence[Operation], most_bytes: int) -> Iterator[list[tuple[int, Operation]]]:
    """The operations by place, in pieces of about so many bytes."""
    piece: list[tuple[int, Operation]] = []
    size = 0
    for place, operation in enumerate(operations):
        length = len(operation.document or "") + len(operation.id)
        if piece and size + length > most_bytes:
            yield piece
            piece, size = [], 0
        piece.append((place, operation))
        size += length
    if piece:
        yield piece
