"""Statements on uploads."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.domain.artifacts import Upload
from app.domain.errors import NotFoundError
from app.domain.ports import ObjectRef

_COLUMNS: Final = (
    "id, tenant, bucket, key, filename, upload_id, size_bytes, content_type, created_by, created_at, completed_at"
)


def add(
    session: Session,
    tenant: str,
    *,
    id: UUID,  # noqa: A002 - the column's name
    ref: ObjectRef,
    filename: str,
    upload_id: str | None,
    size_bytes: int | None,
    content_type: str | None,
    created_by: str,
) -> Upload:
    """Store a new upload."""
    row = session.execute(
        text(
            f"""
            INSERT INTO uploads (id, tenant, bucket, key, filename, upload_id, size_bytes, content_type, created_by)
            VALUES (:id, :tenant, :bucket, :key, :filename, :upload_id, :size_bytes, :content_type, :created_by)
            RETURNING {_COLUMNS}
            """
        ),
        {
            "id": id,
            "tenant": tenant,
            "bucket": ref.bucket,
            "key": ref.key,
            "filename": filename,
            "upload_id": upload_id,
            "size_bytes": size_bytes,
            "content_type": content_type,
            "created_by": created_by,
        },
    ).one()
    return _upload(row)


def get(session: Session, tenant: str, upload_id: UUID) -> Upload:
    """One upload.

    Raises:
        NotFoundError: The tenant has none of this id.
    """
    upload = find(session, tenant, upload_id)
    if upload is None:
        raise NotFoundError(f"there is no upload {upload_id}", code="upload.not_found")
    return upload


def find(session: Session, tenant: str, upload_id: UUID) -> Upload | None:
    """One upload; ``None`` when the tenant has none of this id."""
    row = session.execute(
        text(f"SELECT {_COLUMNS} FROM uploads WHERE id = :id AND tenant = :tenant"),
        {"id": upload_id, "tenant": tenant},
    ).one_or_none()
    return None if row is None else _upload(row)


def complete(session: Session, tenant: str, upload_id: UUID) -> Upload:
    """Note that the upload has arrived whole; the first time stays.

    Raises:
        NotFoundError: The tenant has none of this id.
    """
    session.execute(
        text(
            """
            UPDATE uploads SET completed_at = clock_timestamp()
            WHERE id = :id AND tenant = :tenant AND completed_at IS NULL
            """
        ),
        {"id": upload_id, "tenant": tenant},
    )
    return get(session, tenant, upload_id)


def abandoned(session: Session, *, before: datetime, limit: int) -> list[Upload]:
    """Uploads of all tenants begun before that and not known to have arrived, the oldest first."""
    rows = session.execute(
        text(
            f"""
            SELECT {_COLUMNS} FROM uploads WHERE completed_at IS NULL AND created_at <= :before
            ORDER BY created_at LIMIT :limit
            """
        ),
        {"before": before, "limit": limit},
    )
    return [_upload(row) for row in rows]


def remove(session: Session, tenant: str, upload_id: UUID) -> None:
    """Forget an upload that never arrived."""
    session.execute(
        text("DELETE FROM uploads WHERE id = :id AND tenant = :tenant AND completed_at IS NULL"),
        {"id": upload_id, "tenant": tenant},
    )


def _upload(row: Row[Any]) -> Upload:
    return Upload(
        id=row.id,
        tenant=row.tenant,
        ref=ObjectRef(row.bucket, row.key),
        filename=row.filename,
        upload_id=row.upload_id,
        size_bytes=row.size_bytes,
        content_type=row.content_type,
        created_by=row.created_by,
        created_at=row.created_at,
        completed_at=row.completed_at,
    )
