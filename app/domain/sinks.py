"""Sinks: buckets of a tenant's own, elsewhere, into which exports go."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


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
class Credentials:
    """What opens a sink. Never shown, logged, or stored in clear."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
