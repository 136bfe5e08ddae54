"""What a request can reach: the use cases and who asks."""

from __future__ import annotations

from typing import cast

from flask import Flask, current_app, g, request

from app.bootstrap import Services
from app.domain.access import DEFAULT_TENANT, Principal, Role
from app.domain.errors import ForbiddenError

_KEY = "haulier"
_LINK = "link"


def attach(app: Flask, services: Services) -> None:
    """Give an app its use cases."""
    app.extensions[_KEY] = services


def services() -> Services:
    """The use cases of the app that answers this request."""
    return cast(Services, current_app.extensions[_KEY])


def principal() -> Principal:
    """Who asks; authenticates at the first call of a request.

    Raises:
        UnauthorizedError: No valid key came with it.
    """
    known = g.get("principal")
    if known is None:
        known = g.principal = services().keys.authenticate(_key_sent())
    return cast(Principal, known)


def follow_link() -> None:
    """Let a request do without a key: its link says what it may read, and for which tenant.

    Raises:
        ForbiddenError: The link is not ours, was changed, or is over.
    """
    of = services().links.tenant_of(request.path, request.args)
    g.principal = Principal(key_id=_LINK, tenant=of, role=Role.MEMBER)


def by_link() -> bool:
    """Whether the request does without a key."""
    return principal().key_id == _LINK


def tenant() -> str:
    """The tenant of who asks."""
    return principal().tenant


def actor() -> str:
    """Who asks, for the audit trail."""
    return f"key:{principal().key_id}"


def require_admin() -> None:
    """Raise ForbiddenError unless the key is an admin's."""
    if principal().role is not Role.ADMIN:
        raise ForbiddenError("this needs an admin key, got a member's", code="auth.admin_needed")


def is_operator() -> bool:
    """Whether who asks runs the installation: an admin of the tenant ``default``."""
    return principal().role is Role.ADMIN and tenant() == DEFAULT_TENANT


def require_operator() -> None:
    """Raise ForbiddenError unless who asks runs the installation, all tenants' part of it."""
    require_admin()
    if not is_operator():
        raise ForbiddenError(
            f"this concerns every tenant and needs an admin key of tenant {DEFAULT_TENANT!r}",
            code="auth.operator_needed",
        )


def _key_sent() -> str | None:
    key = request.headers.get("X-API-Key")
    if key is not None:
        return key
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else None
