"""What S3's refusals and silences mean for a job: permanent or transient, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from urllib3.exceptions import HTTPError

from app.domain.errors import JobError, TransientError
from app.domain.ports import ObjectRef

_TRANSIENT_CODES: Final = frozenset(
    {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestLimitExceeded", "TooManyRequests"}
)
_FORBIDDEN_CODES: Final = frozenset(
    {"AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AllAccessDisabled"}
)


@contextmanager
def explained(action: str, ref: ObjectRef) -> Iterator[None]:
    """Turn whatever boto3 raises inside into our errors.

    Args:
        action: The IAM action that the call needs, such as ``s3:GetObject``; named when it is refused.
        ref: The object; the errors name its bucket and key and never a credential.
    Raises:
        JobError: ``s3.not_found``, ``s3.no_such_bucket``, ``s3.no_such_upload``, ``s3.forbidden``, ``s3.changed`` or
            ``s3.refused``.
        TransientError: ``s3.unavailable``: 5xx, 429, a time-out, a broken connection.
    """
    try:
        yield
    except ClientError as error:
        raise _of_answer(error, action, ref) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise _forbidden(action, ref, "no credentials are set") from error
    except ParamValidationError as error:
        raise JobError(f"S3 cannot take {_named(ref)}: {error}", code="s3.refused") from error
    except (BotoCoreError, HTTPError, OSError) as error:
        raise TransientError(
            f"S3 did not answer {action} for {_named(ref)}: {type(error).__name__}", code="s3.unavailable"
        ) from error


def _of_answer(error: ClientError, action: str, ref: ObjectRef) -> JobError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    by_code = {"NoSuchBucket": no_such_bucket, "NoSuchUpload": no_such_upload}
    by_status = {404: not_found, 412: changed}
    if simple := by_code.get(code) or by_status.get(status):
        return simple(ref)
    if status == 429 or status >= 500 or code in _TRANSIENT_CODES:
        return TransientError(f"S3 answered {action} for {_named(ref)} with {status} {code}", code="s3.unavailable")
    if status in (401, 403) or code in _FORBIDDEN_CODES:
        return _forbidden(action, ref, code or str(status))
    return JobError(f"S3 refused {action} for {_named(ref)} with {status} {code}", code="s3.refused")


def not_found(ref: ObjectRef) -> JobError:
    """The bucket is there, the key is not."""
    return JobError(
        f"there is no object {ref.key!r} in bucket {ref.bucket!r}",
        code="s3.not_found",
        hint="Check s3_key; the upload must have ended before the job starts.",
        data={"bucket": ref.bucket, "key": ref.key},
    )


def no_such_bucket(ref: ObjectRef) -> JobError:
    """The bucket itself is missing."""
    return JobError(
        f"there is no bucket {ref.bucket!r} (looking for key {ref.key!r})",
        code="s3.no_such_bucket",
        hint="Check s3_bucket or the setting S3_BUCKET; Haulier makes no buckets.",
        data={"bucket": ref.bucket, "key": ref.key},
    )


def no_such_upload(ref: ObjectRef) -> JobError:
    """The multipart upload was completed, aborted or swept away."""
    return JobError(f"there is no such multipart upload for {_named(ref)}", code="s3.no_such_upload")


def changed(ref: ObjectRef) -> JobError:
    """Somebody replaced the object while a job read it."""
    return JobError(
        f"object {ref.key!r} in bucket {ref.bucket!r} is no longer the one the job began with",
        code="s3.changed",
        hint="Upload the new file under its own key and submit a new job.",
        data={"bucket": ref.bucket, "key": ref.key},
    )


def _forbidden(action: str, ref: ObjectRef, reason: str) -> JobError:
    return JobError(
        f"S3 does not let us do {action} on {_named(ref)} ({reason})",
        code="s3.forbidden",
        hint=f"Give the configured S3 user the permission {action} on this bucket, or correct its credentials.",
        data={"bucket": ref.bucket, "key": ref.key, "action": action},
    )


def _named(ref: ObjectRef) -> str:
    return f"key {ref.key!r} in bucket {ref.bucket!r}" if ref.key else f"bucket {ref.bucket!r}"
