"""A bucket that is a tenant's own, on the tests' S3."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.storage.s3 import S3Store
from config.settings import Settings

THEIRS = "their-bucket"


def with_sinks(settings: Settings, *ports: int) -> Settings:
    """``settings`` of an installation that may call loopback at S3 and at ``ports``; the bucket is there."""
    port = urlsplit(str(settings.s3_endpoint)).port
    ours = settings.model_copy(
        update={
            "master_key": SecretStr("m" * 32),
            "secret_key": SecretStr("s" * 32),
            "allow_private_hosts": ("127.0.0.1/32",),
            "outgoing_ports": frozenset({port, *ports}),
        }
    )
    client = S3Store(ours).client
    if THEIRS not in [one["Name"] for one in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=THEIRS)
    return ours


def place(settings: Settings, **changes: Any) -> dict[str, Any]:
    """What ``PUT /v1/sinks/{name}`` takes for it."""
    secret = settings.s3_secret_access_key
    assert secret is not None
    return {
        "bucket": THEIRS,
        "endpoint": settings.s3_endpoint,
        "prefix": "from/haulier",
        "access_key_id": settings.s3_access_key_id,
        "secret_access_key": secret.get_secret_value(),
        **changes,
    }
