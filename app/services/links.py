"""Links that do without a key: whoever has one may read what it names, for a tenant, until it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from app.domain.errors import ForbiddenError
from app.domain.ports import Clock
from app.security.links import is_signed, signature
from config.settings import Settings

SIGNATURE: Final = "signature"
_EXPIRES: Final = "expires"
_CACHED_S: Final = 3600


@dataclass(frozen=True, slots=True)
class Link:
    """Where something is downloaded without a key, until when.

    Args:
        url: A path of ours, unless S3 answers it or a CDN stands before us.
    """

    url: str
    expires_at: datetime


class Links:
    """Signs links to our own paths, and says for whom one was signed."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        secret = settings.secret_key or settings.master_key
        self._secret = None if secret is None else secret.get_secret_value()
        self._base = settings.cdn_base_url or ""
        self._ttl_s = settings.presign_ttl_s
        self._clock = clock

    @property
    def expires_at(self) -> datetime:
        """When a link ends that is made now."""
        return self._clock.now() + timedelta(seconds=self._ttl_s)

    def sign(self, tenant: str, path: str, **arguments: str) -> Link | None:
        """A link to ``path``; ``None`` in an installation without a secret."""
        if self._secret is None:
            return None
        expires_at = self.expires_at
        expires = int(expires_at.timestamp())
        asked = _asked(path, {**arguments, "tenant": tenant})
        signed = f"{asked}&{_EXPIRES}={expires}&{SIGNATURE}={signature(self._secret, asked, expires)}"
        return Link(self._base + signed, expires_at)

    def tenant_of(self, path: str, arguments: Mapping[str, str]) -> str:
        """The tenant whose link was followed.

        Raises:
            ForbiddenError: ``link.invalid``; ``link.expired``.
        """
        given, said = arguments.get(SIGNATURE, ""), arguments.get(_EXPIRES, "")
        expires = int(said) if said.isascii() and said.isdigit() and len(said) < 16 else 0
        asked = _asked(path, {name: one for name, one in arguments.items() if name not in (SIGNATURE, _EXPIRES)})
        if self._secret is None or not is_signed(self._secret, asked, expires, given):
            raise ForbiddenError("the link is not one that was made here, or it was changed", code="link.invalid")
        if expires <= self._clock.now().timestamp():
            over = datetime.fromtimestamp(expires, UTC)
            raise ForbiddenError(f"the link was good until {over.isoformat()}", code="link.expired")
        return arguments["tenant"]

    def cached_s(self, arguments: Mapping[str, str], until: datetime | None) -> int:
        """How long others may keep what a link was followed to, which itself is there ``until`` then."""
        now = self._clock.now().timestamp()
        ends = [now + _CACHED_S, float(arguments[_EXPIRES]), *([until.timestamp()] if until else [])]
        return max(0, int(min(ends) - now))


def _asked(path: str, arguments: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(sorted(arguments.items()))}"
