"""Where a tenant's objects live in S3, and which names objects get."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from uuid import UUID

from app.domain.access import DEFAULT_TENANT
from app.domain.errors import ForbiddenError, InvalidRequestError, Problem
from app.domain.ports import ObjectRef

MAX_KEY_BYTES: Final = 1024
"""S3's own limit."""
MAX_NAME_BYTES: Final = 120
"""Of a file name inside a key: with a UUID in front it stays under the 200 bytes that every server takes."""

_TENANT_PLACE: Final = re.compile(r"t/([^/]*)(?:/|$)")
_TENANT_ROOT: Final = re.compile(r"^t/[^/]+/")
_OWNER: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PART: Final = re.compile(r"(?:-r[0-9]+)?-[0-9]{5}$")
_MOST_SUFFIXES: Final = 3
"""Of a file: its format, its compression, and that it is encrypted."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


def root_of(tenant: str) -> str:
    """The prefix below which everything of ``tenant`` lives: empty for ``default``, ``t/<tenant>/`` for others."""
    return "" if tenant == DEFAULT_TENANT else f"t/{tenant}/"


def place(tenant: str, bucket: str | None, key: str, *, own_bucket: str, allowed: Collection[str]) -> ObjectRef:
    """The object that ``tenant`` means by ``bucket`` and ``key``.

    Args:
        tenant: Whose root the key is relative to; the root's prefix holds in every bucket.
        bucket: ``None`` means ``own_bucket``.
        key: Relative to the tenant's root. A key that already starts with the tenant's own prefix is taken as it is.
        own_bucket: The installation's bucket.
        allowed: Other buckets that requests may name.
    Raises:
        ForbiddenError: ``s3.bucket_forbidden``; or ``s3.prefix_forbidden`` for a key that leaves the tenant's root.
        InvalidRequestError: ``s3.key_invalid``: an empty or over-long key.
    """
    if bucket is not None and bucket != own_bucket and bucket not in allowed:
        raise ForbiddenError(
            f"bucket {bucket!r} is not open to jobs",
            code="s3.bucket_forbidden",
            hint="Leave s3_bucket out, or have the bucket added to HAULIER_S3_ALLOWED_BUCKETS.",
        )
    _check_key(tenant, key)
    root = root_of(tenant)
    full = key if root and key.startswith(root) else root + key
    if len(full.encode()) > MAX_KEY_BYTES:
        raise InvalidRequestError(
            f"an S3 key has at most {MAX_KEY_BYTES} bytes, got {len(full.encode())}", code="s3.key_invalid"
        )
    return ObjectRef(bucket or own_bucket, full)


def path_parts(tenant: str, path: str, *, root: str | None, pointer: str) -> tuple[str, ...]:
    """The folders and the name that ``path`` means below ``root``, as a tenant's keys lie in a bucket.

    Args:
        path: Relative to the tenant's part of the folder, or absolute and in it.
    Raises:
        InvalidRequestError: ``source.path_closed`` without a root; ``source.path_forbidden`` when it leads elsewhere.
    """
    if root is None:
        raise _bad_path("this installation has no folder to import from", pointer, code="source.path_closed")
    own = f"{root.rstrip('/')}/{root_of(tenant)}"
    try:
        ref = place(tenant, None, path.removeprefix(own), own_bucket="", allowed=())
    except (ForbiddenError, InvalidRequestError):
        detail = f"expected a path in the import folder, without empty, '.' or '..' parts, got {path!r}"
        raise _bad_path(detail, pointer, code="source.path_forbidden") from None
    return tuple(ref.key.removesuffix("/").split("/"))


def _bad_path(detail: str, pointer: str, *, code: str) -> InvalidRequestError:
    return InvalidRequestError(
        detail, code=code, hint="HAULIER_IMPORT_ROOT names the folder.", problems=(Problem(pointer, detail),)
    )


def relative_key(tenant: str, ref: ObjectRef) -> str:
    """The key as ``tenant`` writes it: without its root."""
    return ref.key.removeprefix(root_of(tenant))


def _check_key(tenant: str, key: str) -> None:
    if not key:
        raise InvalidRequestError("an S3 key has at least one character, got none", code="s3.key_invalid")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError("an S3 key is valid Unicode, got a lone surrogate", code="s3.key_invalid") from None
    # A server that keeps files on disk reads "t//b/x" and "t/./b/x" as "t/b/x": no such segment may pass.
    if any(segment in ("", ".", "..") for segment in key.removesuffix("/").split("/")):
        raise _leaves(f"an S3 key is relative and has no empty, '.' or '..' segment, got {key!r}")
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        raise _leaves(f"an S3 key has no control characters, got {key!r}")
    other = _TENANT_PLACE.match(key)
    if other and (tenant == DEFAULT_TENANT or other.group(1) != tenant):
        raise _leaves(f"key {key!r} lies in another tenant's place")


def _leaves(detail: str) -> ForbiddenError:
    return ForbiddenError(
        detail,
        code="s3.prefix_forbidden",
        hint="Give the key as the upload answered it; it is relative to your own place in the bucket.",
    )


def safe_name(filename: str) -> str:
    """``filename`` as one ASCII key segment of at most 120 bytes; its extension is kept, its folders are not."""
    name = _UNSAFE.sub("_", filename.replace("\\", "/").rsplit("/", 1)[-1]).lstrip("._-")
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension) > 16:
        return name[:MAX_NAME_BYTES] or "file"
    return f"{stem[: MAX_NAME_BYTES - len(extension) - 1]}.{extension}"


def uploaded_key(prefix: str, upload_id: UUID, filename: str) -> str:
    """Where an upload goes, relative to the tenant's root: ``<prefix>/<uuid>_<safe filename>``."""
    return below(prefix, f"{upload_id}_{safe_name(filename)}")


def exported_key(prefix: str, job_id: UUID, suffix: str) -> str:
    """Where a job's export goes, relative to the tenant's root: ``<prefix>/<job uuid><suffix>``."""
    return below(prefix, f"{job_id}{suffix}")


def artifact_key(prefix: str, job_id: UUID, fence: int, name: str) -> str:
    """Where a file of a job goes: ``<prefix>/<job uuid>/<fence>/<name>``, so that no former holder writes over it."""
    return below(prefix, f"{job_id}/{fence}/{safe_name(name)}")


def files_of(tenant: str, prefix: str, job_id: UUID) -> str:
    """What the full keys of a job's files begin with."""
    return root_of(tenant) + below(prefix, f"{job_id}/")


def owner_of(prefix: str, key: str) -> UUID | None:
    """Whose upload's or job's file a full key is; ``None`` for one that Haulier did not choose."""
    relative = _TENANT_ROOT.sub("", key)
    named = relative.removeprefix(below(prefix, ""))
    found = _OWNER.match(named) if relative.startswith(below(prefix, "")) else None
    return UUID(found[0]) if found else None


def stems_of(key: str) -> list[str]:
    """Under which names an export may write a file of this full key: without suffixes, and without a part's number."""
    found = []
    stem = key
    for _ in range(_MOST_SUFFIXES):
        stem, _, suffix = stem.rpartition(".")
        if not stem or "/" in suffix:
            break
        found += [stem, _PART.sub("", stem)]
    return found


def below(prefix: str, name: str) -> str:
    """``prefix/name``; an empty prefix adds no slash."""
    return f"{prefix}/{name}" if prefix else name
