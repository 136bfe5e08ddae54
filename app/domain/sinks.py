"""Sinks: places of a tenant's own, elsewhere, into which exports and results go."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

DELIVER_RESULTS: Final = "deliver_results"
"""The job type that takes what a job came to into a sink."""


@dataclass(frozen=True, slots=True)
class S3Sink:
    """A bucket, wherever it is, without what opens it.

    Args:
        endpoint: ``None`` for AWS.
        prefix: What keys are relative to; empty, or without slashes around it.
    """

    tenant: str
    name: str
    bucket: str
    region: str
    endpoint: str | None
    prefix: str
    created_by: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class WebhookSink:
    """An address that results are posted to, without what they are signed with.

    Args:
        origin: Scheme, host and port: the rest of the URL may be secret.
    """

    tenant: str
    name: str
    origin: str
    created_by: str
    created_at: datetime
    updated_at: datetime


TenantSink = S3Sink | WebhookSink


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens a bucket. Never shown, logged, or stored in clear."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where a webhook's posts go and what they are signed with. Never logged, or stored in clear.

    Args:
        secret: ``whsec_`` and base64; shown once, to who has it made.
    """

    url: str = field(repr=False)
    secret: str = field(repr=False)
