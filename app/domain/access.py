"""Who asks: tenants, keys and what a role may do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.domain.errors import InvalidRequestError, Problem

_TENANT: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
DEFAULT_TENANT: Final = "default"


class Role(StrEnum):
    """What a key may do: members work with jobs and data, admins also manage keys and tables' declarations."""

    ADMIN = "admin"
    MEMBER = "member"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is shown; its secret is never kept."""

    id: str
    tenant: str
    role: Role
    label: str
    created_by: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request."""

    key_id: str
    tenant: str
    role: Role


def check_tenant(name: str) -> str:
    """``name`` if a tenant can be called so.

    Raises:
        InvalidRequestError: It is not lower-case letters, digits and ``_``, starting with a letter, at most 41 long.
    """
    if not _TENANT.fullmatch(name):
        raise InvalidRequestError(
            f"a tenant's name is a lower-case letter, then letters, digits or _, at most 41, got {name!r}",
            problems=(Problem("/tenant", f"not a tenant's name: {name!r}"),),
        )
    return name
