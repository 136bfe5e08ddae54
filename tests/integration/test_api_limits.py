"""The rate limit counts a key's requests, and an address only as far as known proxies tell it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr

from app.bootstrap import build_services
from app.domain.access import Role
from app.factory import create_app
from config.settings import Settings
from tests.integration.conftest import Client

Make = Callable[..., Client]


@pytest.fixture
def make(settings: Settings) -> Iterator[Make]:
    """Makes an application with other settings, and a client with a fresh key."""
    engines = []

    def make(**changes: object) -> Client:
        changed = settings.model_copy(update=changes)
        services = build_services(changed, application_name="tests limits", pool_size=4)
        engines.append(services.sessions.kw["bind"])
        key, _ = services.keys.create("default", Role.MEMBER, created_by="tests")
        return Client(create_app(changed, services), key)

    yield make
    for engine in engines:
        engine.dispose()


def test_a_key_over_its_limit_is_429_and_told_when_to_come_back(make: Make) -> None:
    client = make(rate_limit_per_minute=3)
    other = Client(client.app, make().key)

    answers = [client.get("/v1/jobs") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].mimetype == "application/problem+json"
    assert answers[-1].get_json()["code"] == "request.rate_limited"
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert other.get("/v1/jobs").status_code == 200
    assert client.get("/v1/health").status_code == 200


def test_processes_count_together(make: Make) -> None:
    first = make(rate_limit_per_minute=2)
    second = Client(make(rate_limit_per_minute=2).app, first.key)

    codes = [client.get("/v1/jobs").status_code for client in (first, second, first)]

    assert codes == [200, 200, 429]


def test_without_redis_requests_are_served_and_still_counted(make: Make) -> None:
    client = make(rate_limit_per_minute=3, redis_url=SecretStr("redis://127.0.0.1:9/0"))

    codes = [client.get("/v1/jobs").status_code for _ in range(5)]

    assert codes[:3] == [200, 200, 200]
    assert set(codes) <= {200, 429}


def test_guessed_keys_count_for_the_address_and_a_forged_one_changes_nothing(make: Make) -> None:
    client = make(rate_limit_per_minute=2)
    nobody = Client(client.app, None)
    guesses = [{"X-API-Key": f"guess-{n}", "X-Forwarded-For": f"203.0.113.{n}"} for n in range(4)]

    codes = [
        nobody.get("/v1/jobs", headers=guess, environ_overrides={"REMOTE_ADDR": "198.51.100.7"}).status_code
        for guess in guesses
    ]

    assert codes == [401, 401, 429, 429]


def test_a_known_proxy_tells_addresses_apart(make: Make) -> None:
    nobody = Client(make(rate_limit_per_minute=1, trusted_proxies=1).app, None)
    callers = ["203.0.113.50", "203.0.113.51", "1.2.3.4, 203.0.113.50"]

    codes = [nobody.get("/v1/jobs", headers={"X-Forwarded-For": caller}).status_code for caller in callers]

    assert codes == [401, 401, 429]


def test_without_a_limit_nothing_is_counted(make: Make) -> None:
    client = make()

    assert {client.get("/v1/jobs").status_code for _ in range(30)} == {200}
