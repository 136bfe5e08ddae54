"""A tenant's place in S3 under this installation's settings."""

from __future__ import annotations

from uuid import UUID

from app.domain import places
from app.domain.places import safe_name
from app.domain.ports import ObjectRef
from config.settings import Settings

__all__ = ["export_key", "resolve", "safe_name"]


def resolve(settings: Settings, tenant: str, bucket: str | None, key: str) -> ObjectRef:
    """The object that ``tenant`` means by ``bucket`` (``None``: the installation's own) and ``key``.

    Raises:
        ForbiddenError: ``s3.bucket_forbidden`` for a bucket that is not allowed; ``s3.prefix_forbidden`` for a key with
            ``..``, a leading slash or a control character, or one in another tenant's place.
        InvalidRequestError: ``s3.key_invalid``: an empty or over-long key.
    """
    return places.place(tenant, bucket, key, own_bucket=settings.s3_bucket, allowed=settings.s3_allowed_buckets)


def export_key(settings: Settings, job_id: UUID, suffix: str) -> str:
    """The key of a job's export, relative to its tenant's root: ``<prefix>/<job uuid><suffix>``.

    ``suffix`` is ``.csv`` or ``.csv.gz``.
    """
    return places.exported_key(settings.s3_upload_file_path_prefix, job_id, suffix)
