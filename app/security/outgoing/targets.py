"""What a URL points at, read once and in one way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.parse import urlsplit

from requests import PreparedRequest, RequestException
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from app.domain.errors import PermanentError

FORBIDDEN: Final = "ERR_URL_FORBIDDEN"
USUAL_PORTS: Final = frozenset({80, 443, 8080, 8443})

_DEFAULT_PORT: Final = {"http": 80, "https": 443}
# Programs disagree on what these characters mean in a URL, and guards are passed by where they disagree.
_AMBIGUOUS: Final = re.compile(r"[\x00-\x20\x7f\\]")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_LONGEST_URL: Final = 8192


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes.

    Args:
        url: As it is requested: the host in ASCII and lower case, the path quoted.
        host: A name or an address, without brackets.
    """

    url: str
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> str:
        """The part of the URL that may be told: names, paths and queries may hold secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def forbidden(reason: str, hint: str | None = None) -> PermanentError:
    """The error of a call that may not be made, now or later."""
    return PermanentError(f"the URL is forbidden: {reason}", code=FORBIDDEN, hint=hint)


def parse_target(url: str) -> Target:
    """Read ``url``.

    Raises:
        PermanentError: It is no http or https URL, or one that may be read in two ways (``ERR_URL_FORBIDDEN``).
    """
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _DEFAULT_PORT:
        raise forbidden("it must start with http:// or https://")
    if len(url) > _LONGEST_URL:
        raise forbidden(f"it is longer than {_LONGEST_URL} characters")
    if _AMBIGUOUS.search(url):
        raise forbidden("it holds a space, a control character or a backslash")
    host, port, normal = _read(url)
    _check_host(host)
    return Target(url=normal, scheme=scheme, host=host, port=port or _DEFAULT_PORT[scheme])


def _read(url: str) -> tuple[str, int | None, str]:
    try:
        request = PreparedRequest()
        request.prepare_url(url, None)
        normal = str(request.url)
        parts, dialled = urlsplit(normal), parse_url(normal)
        host, port = parts.hostname or "", parts.port
        named = urlsplit(url).port
    except (RequestException, LocationParseError, ValueError):
        raise forbidden("it cannot be read as a URL") from None
    if host != (dialled.host or "").strip("[]").lower() or not port == dialled.port == named:
        raise forbidden("its host or port can be read in two ways")
    return host, port, normal


def _check_host(host: str) -> None:
    try:
        if ":" in host:
            IPv6Address(host)
        elif _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            IPv4Address(host)
    except AddressValueError:
        raise forbidden(f"{host!r} is not an address in its usual form") from None
    labels = host.removesuffix(".").split(".")
    if "%" in host or len(host) > 253 or any(not 0 < len(label) < 64 for label in labels):
        raise forbidden("it has no host, or one that no name server can know")
