"""The API as commands see it: JSON in, JSON out, and failures that end the command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import requests

import haulier
from app.cli.failures import CommandFailed, Exit, exit_of, failed

_TIMEOUT_S: Final = (5.0, 75.0)
_AGAIN_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Pauses before a request is sent again that the server could not take; only requests that may be repeated."""
_PAGE: Final = 1_000


class Client:
    """Talks to one Haulier with one key.

    A server that has answered before and is away now is waited for; one that never answered is not.
    """

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self._has_answered = False
        self._session = requests.Session()
        self._session.headers.update({"X-API-Key": key, "User-Agent": f"haulier/{haulier.__version__}"})

    def get(self, path: str, **query: Any) -> Any:
        """The answer to a GET, sent again while the server is away for a moment."""
        return self._patiently("GET", path, params=_without_none(query))

    def post(self, path: str, body: dict[str, Any] | None = None, *, idempotency_key: str | None = None) -> Any:
        """The answer to a POST; with an idempotency key it is sent again like a GET."""
        if idempotency_key is None:
            return self._json("POST", path, json=body)
        return self._patiently("POST", path, json=body, headers={"Idempotency-Key": idempotency_key})

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to a PUT, sent again like a GET."""
        return self._patiently("PUT", path, json=body)

    def delete(self, path: str) -> Any:
        """The answer to a DELETE, ``None`` when it has no body."""
        return self._json("DELETE", path)

    def pages(self, path: str, *, most: int, **query: Any) -> Iterator[dict[str, Any]]:
        """The first ``most`` items of a listing, read page by page."""
        cursor = None
        while most > 0:
            answer = self.get(path, limit=min(most, _PAGE), cursor=cursor, **query)
            yield from answer["items"]
            most -= len(answer["items"])
            cursor = answer["next_cursor"]
            if cursor is None:
                return

    def stream(self, path: str, **query: Any) -> Iterator[bytes]:
        """The body of a GET, in blocks."""
        with self._send("GET", path, params=_without_none(query), stream=True) as response:
            yield from response.iter_content(65_536)

    def answer(self, path: str, body: dict[str, Any]) -> requests.Response:
        """The response to a POST whose body is still to be read; close it."""
        return self._send("POST", path, json=body, stream=True)

    def _patiently(self, method: str, path: str, **arguments: Any) -> Any:
        for pause_s in _AGAIN_S:
            try:
                return self._json(method, path, **arguments)
            except CommandFailed as error:
                is_away = error.exit_code == Exit.SERVER and error.problem.get("status") != 500
                if not (is_away and self._has_answered):
                    raise
            time.sleep(pause_s)
        return self._json(method, path, **arguments)

    def _json(self, method: str, path: str, **arguments: Any) -> Any:
        with self._send(method, path, **arguments) as response:
            return None if response.status_code == 204 else self._body(response)

    def _send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        try:
            response = self._session.request(method, self.url + path, timeout=_TIMEOUT_S, **arguments)
        except requests.RequestException as error:
            raise failed(
                f"{self.url} does not answer: {_reason(error)}",
                Exit.SERVER,
                code="server.unreachable",
                hint="Is it running ('haulier up'), and is HAULIER_URL right?",
            ) from error
        self._has_answered = True
        if response.status_code >= 400:
            raise CommandFailed(self._body(response), exit_of(response.status_code))
        return response

    def _body(self, response: requests.Response) -> Any:
        try:
            return response.json()
        except ValueError:
            raise failed(
                f"{response.url} answered {response.status_code} with something that is not JSON",
                Exit.SERVER,
                code="server.not_haulier",
                hint="Is HAULIER_URL the address of Haulier itself?",
            ) from None


def _without_none(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _reason(error: requests.RequestException) -> str:
    """The innermost reason, without the URL that may hold a signature."""
    inner: BaseException = error
    while inner.__context__ is not None:
        inner = inner.__context__
    return str(inner) or type(inner).__name__
