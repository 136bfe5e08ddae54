"""The web application on the session's real stores, and clients of it with keys of two tenants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.bootstrap import Services, build_services
from app.domain.access import Role
from app.factory import create_app
from app.web.current import attach
from config.settings import Settings


@dataclass(frozen=True, slots=True)
class Client:
    """Calls the application with one key (or none)."""

    app: Flask
    key: str | None
    tenant: str = "default"

    def call(self, method: str, path: str, **arguments: Any) -> TestResponse:
        """One request; ``json``, ``query_string``, ``headers`` and ``data`` as Flask's test client takes them."""
        headers = {**({"X-API-Key": self.key} if self.key else {}), **arguments.pop("headers", {})}
        return self.app.test_client().open(path, method=method, headers=headers, **arguments)

    def get(self, path: str, **arguments: Any) -> TestResponse:
        """GET."""
        return self.call("GET", path, **arguments)

    def post(self, path: str, json: Any = None, **arguments: Any) -> TestResponse:
        """POST of a JSON body."""
        return self.call("POST", path, **({"json": json} if json is not None else {}), **arguments)

    def put(self, path: str, json: Any, **arguments: Any) -> TestResponse:
        """PUT of a JSON body."""
        return self.call("PUT", path, json=json, **arguments)

    def delete(self, path: str, **arguments: Any) -> TestResponse:
        """DELETE."""
        return self.call("DELETE", path, **arguments)


@pytest.fixture
def web_services(settings: Settings) -> Iterator[Services]:
    """The use cases behind the application."""
    services = build_services(settings, application_name="tests web", pool_size=8)
    yield services
    services.sessions.kw["bind"].dispose()


@pytest.fixture(scope="session")
def apps() -> dict[str, Flask]:
    """Applications by their settings: to make one takes as long as ten requests."""
    return {}


@pytest.fixture
def web_app(settings: Settings, web_services: Services, apps: dict[str, Flask]) -> Flask:
    """The application, with use cases of the test's own; nothing may be added to it."""
    known = settings.model_dump_json()
    if known not in apps:
        apps[known] = create_app(settings, web_services)
    attach(apps[known], web_services)
    return apps[known]


def _client(app: Flask, services: Services, tenant: str, role: Role) -> Client:
    key, _ = services.keys.create(tenant, role, created_by="tests")
    return Client(app, key, tenant)


@pytest.fixture
def admin(web_app: Flask, web_services: Services) -> Client:
    """An admin of tenant ``default``."""
    return _client(web_app, web_services, "default", Role.ADMIN)


@pytest.fixture
def member(web_app: Flask, web_services: Services) -> Client:
    """A member of tenant ``default``."""
    return _client(web_app, web_services, "default", Role.MEMBER)


@pytest.fixture
def stranger(web_app: Flask, web_services: Services) -> Client:
    """An admin of another tenant."""
    return _client(web_app, web_services, "acme", Role.ADMIN)


@pytest.fixture
def nobody(web_app: Flask) -> Client:
    """A client without a key."""
    return Client(web_app, None)
