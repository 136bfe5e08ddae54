from __future__ import annotations

import pytest
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES, resolve_transport

from app.broker.transport import Transport, install


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_redis_url_keeps_its_name_and_gets_our_transport(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSPORT_ALIASES, scheme, "kombu.transport.redis:Transport")

    install()

    # Not by the connection, which remembers what other tests had made of the scheme.
    assert resolve_transport(scheme) is Transport
    assert Connection(f"{scheme}://127.0.0.1:6379/0").as_uri().startswith(f"{scheme}://")
