"""A call, the answer to it, and the call that a redirect asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from typing import Final
from urllib.parse import urljoin

from requests import Response
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError

from app.security.outgoing.bodies import capped, decoded
from app.security.outgoing.faults import explained
from app.security.outgoing.line import Line
from app.security.outgoing.targets import Target, forbidden, parse_target

_CHUNK_BYTES: Final = 65_536
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# Whoever is led elsewhere takes no secret along; any other header may be one.
_GO_ELSEWHERE: Final = frozenset({"accept", "accept-language", "content-type", "idempotency-key", "user-agent"})


@dataclass(frozen=True, slots=True)
class Call:
    """What to send.

    Args:
        timeout_s: From the first look at the name to the last byte of the answer, redirects included.
        max_response_bytes: The most content that is taken, counted after decompression.
        max_redirects: How many are followed; with 0 a redirect is an answer like others.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    timeout_s: float = 30.0
    max_response_bytes: int = 1_048_576
    max_redirects: int = 0


class Reply:
    """An answer whose head is here and whose body is still to come."""

    def __init__(self, response: Response, target: Target, line: Line, max_bytes: int) -> None:
        self._response = response
        self._line = line
        self._max_bytes = max_bytes
        self.target = target
        self.status: int = response.status_code
        self.headers: CaseInsensitiveDict[str] = response.headers

    def chunks(self) -> Iterator[bytes]:
        """The content, decompressed, in pieces; to be read once.

        Raises:
            ResponseTooLargeError: There is more than the call takes; what it takes was given.
            JobError: It is compressed in a way we cannot read.
            TransientError: It did not arrive whole, or not in time.
        """
        received = capped(self._received(), self._max_bytes + _CHUNK_BYTES)
        return capped(decoded(received, self.headers.get("Content-Encoding", "")), self._max_bytes)

    def _received(self) -> Iterator[bytes]:
        try:
            yield from self._response.raw.stream(_CHUNK_BYTES, decode_content=False)
        except (OSError, HTTPError, HTTPException) as error:
            self._line.check()
            raise explained(error, self.target) from None
        if self._line.is_cut:  # a body without a length looks complete when we end it ourselves
            self._line.check()


def redirected(call: Call, target: Target, status: int, location: str | None) -> Call | None:
    """The call that an answer to ``call`` leads to, not yet checked; ``None`` when it leads nowhere.

    Raises:
        PermanentError: It leads from https to http, or to no URL (``ERR_URL_FORBIDDEN``).
    """
    if status not in _REDIRECTS or not location:
        return None
    try:
        url = urljoin(target.url, location.encode("latin-1").decode("utf-8", "replace"))
    except ValueError:
        raise forbidden(f"{target.origin} redirects to what cannot be read as a URL") from None
    following = parse_target(url)
    if target.scheme == "https" and following.scheme == "http":
        raise forbidden(f"{target.origin} redirects from https to http")
    headers = dict(call.headers)
    if following.origin != target.origin:
        headers = {name: value for name, value in headers.items() if name.lower() in _GO_ELSEWHERE}
    if status in {307, 308} or call.method in {"GET", "HEAD"}:
        return replace(call, url=url, headers=headers)
    if status != 303 and call.method != "POST":
        return replace(call, url=url, headers=headers)
    headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    return replace(call, method="GET", url=url, headers=headers, body=None)
