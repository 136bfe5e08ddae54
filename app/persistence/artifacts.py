"""Statements on artifacts."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.domain.artifacts import Artifact, ArtifactKind
from app.domain.errors import NotFoundError
from app.domain.lifecycle import TERMINAL
from app.domain.ports import ObjectRef

_COLUMNS: Final = (
    "id, job_id, tenant, kind, name, content_type, bucket, key, size_bytes, sha256, rows, created_at, expires_at,"
    " removed_at, sealed_bytes"
)


def put(session: Session, tenant: str, artifact: Artifact) -> None:
    """Store an artifact; one of the same id and tenant is replaced, as a job that ran again writes the same ids.

    Call it before the job's guarded UPDATE in one transaction: a run that lost its fence must leave no row.
    """
    session.execute(
        text(
            f"""
            INSERT INTO artifacts ({_COLUMNS})
            VALUES (:id, :job_id, :tenant, :kind, :name, :content_type, :bucket, :key, :size_bytes, :sha256, :rows,
                    clock_timestamp(), :expires_at, NULL, :sealed_bytes)
            ON CONFLICT (id) DO UPDATE SET
                name = excluded.name, content_type = excluded.content_type, bucket = excluded.bucket,
                key = excluded.key, size_bytes = excluded.size_bytes, sha256 = excluded.sha256, rows = excluded.rows,
                created_at = excluded.created_at, expires_at = excluded.expires_at, removed_at = NULL,
                sealed_bytes = excluded.sealed_bytes
            WHERE artifacts.tenant = excluded.tenant AND artifacts.job_id = excluded.job_id
            """
        ),
        {
            "id": artifact.id,
            "job_id": artifact.job_id,
            "tenant": tenant,
            "kind": artifact.kind,
            "name": artifact.name,
            "content_type": artifact.content_type,
            "bucket": artifact.ref.bucket,
            "key": artifact.ref.key,
            "size_bytes": artifact.size_bytes,
            "sha256": artifact.sha256,
            "rows": artifact.rows,
            "expires_at": artifact.expires_at,
            "sealed_bytes": artifact.sealed_bytes,
        },
    )


def of_job(session: Session, tenant: str, job_id: UUID) -> list[Artifact]:
    """A job's artifacts by name, but for copies of sources; empty when it has none or is another tenant's."""
    rows = session.execute(
        text(
            f"SELECT {_COLUMNS} FROM artifacts "
            f"WHERE job_id = :job_id AND tenant = :tenant AND kind <> '{ArtifactKind.SOURCE}' ORDER BY name, id"
        ),
        {"job_id": job_id, "tenant": tenant},
    )
    return [_artifact(row) for row in rows]


def get(session: Session, tenant: str, artifact_id: UUID) -> Artifact:
    """One artifact.

    Raises:
        NotFoundError: The tenant has none of this id.
    """
    row = session.execute(
        text(
            f"SELECT {_COLUMNS} FROM artifacts WHERE id = :id AND tenant = :tenant AND kind <> '{ArtifactKind.SOURCE}'"
        ),
        {"id": artifact_id, "tenant": tenant},
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no artifact {artifact_id}", code="artifact.not_found")
    return _artifact(row)


def expired(session: Session, *, at: datetime, limit: int) -> list[Artifact]:
    """Artifacts of all tenants whose time was over at ``at`` and whose bytes are there; no source of a live job."""
    rows = session.execute(
        text(
            f"""
            SELECT {_COLUMNS} FROM artifacts
            WHERE expires_at <= :at AND removed_at IS NULL AND NOT (kind = '{ArtifactKind.SOURCE}' AND EXISTS (
                SELECT FROM jobs WHERE jobs.id = job_id AND state <> ALL (:over)
            ))
            ORDER BY expires_at LIMIT :limit
            """
        ),
        {"at": at, "limit": limit, "over": sorted(TERMINAL)},
    )
    return [_artifact(row) for row in rows]


def end_source(session: Session, tenant: str, job_id: UUID, *, at: datetime) -> None:
    """Let a job's copy of its source go when the job is over, unless its ledger has rows without a text."""
    session.execute(
        text(
            f"""
            UPDATE artifacts SET expires_at = :at
            WHERE job_id = :job_id AND tenant = :tenant AND kind = '{ArtifactKind.SOURCE}' AND NOT EXISTS (
                SELECT FROM failed_records AS refused WHERE refused.job_id = :job_id AND raw IS NULL
            )
            """
        ),
        {"job_id": job_id, "tenant": tenant, "at": at},
    )


def remove(session: Session, tenant: str, artifact_id: UUID) -> None:
    """Note that an artifact's object is deleted; its row goes with its job."""
    session.execute(
        text("UPDATE artifacts SET removed_at = clock_timestamp() WHERE id = :id AND tenant = :tenant"),
        {"id": artifact_id, "tenant": tenant},
    )


def _artifact(row: Row[Any]) -> Artifact:
    return Artifact(
        id=row.id,
        job_id=row.job_id,
        tenant=row.tenant,
        kind=ArtifactKind(row.kind),
        name=row.name,
        content_type=row.content_type,
        ref=ObjectRef(row.bucket, row.key),
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        rows=row.rows,
        created_at=row.created_at,
        expires_at=row.expires_at,
        removed_at=row.removed_at,
        sealed_bytes=row.sealed_bytes,
    )
