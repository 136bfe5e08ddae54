"""S3 through boto3: the one adapter behind ``domain.ports.ObjectStore``."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from time import perf_counter
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.domain.errors import JobError, TransientError
from app.domain.ports import ObjectInfo, ObjectRef, Unfinished
from app.storage.multipart import S3Upload, checked_parts
from app.storage.s3_errors import changed, explained, no_such_bucket
from config.settings import Settings

_STARTED: Final = "haulier_started"
KEYS_PER_DELETE: Final = 1_000
"""S3's limit."""


class S3Reader:
    """The bytes of an object from some offset on (``domain.ports.ObjectReader``).

    Args:
        ref: Named in errors.
        info: What S3 said with the answer.
        body: The stream; ``None`` is an empty one.
        expected_bytes: How many bytes must come.
        spent: Told the seconds that each read takes.
    """

    def __init__(
        self, ref: ObjectRef, info: ObjectInfo, body: Any, expected_bytes: int, spent: Callable[[float], None]
    ) -> None:
        self.info = info
        self._spent = spent
        self._ref = ref
        self._body = body
        self._left_bytes = expected_bytes

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; ``b""`` at the end.

        Raises:
            TransientError: ``s3.truncated``: the stream broke off early; ``s3.unavailable``: it hung or was cut.
        """
        if self._body is None or size == 0:
            return b""
        start = perf_counter()
        with explained("s3:GetObject", self._ref):
            data: bytes = self._body.read(None if size < 0 else size)
        self._spent(perf_counter() - start)
        self._left_bytes -= len(data)
        if self._left_bytes > 0 and (size < 0 or not data):
            raise TransientError(
                f"key {self._ref.key!r} in bucket {self._ref.bucket!r} ended {self._left_bytes} bytes early",
                code="s3.truncated",
            )
        return data


class S3Store:
    """``domain.ports.ObjectStore``; safe in threads, and after a fork each process makes its own client.

    Args:
        settings: Endpoint, credentials, region.
        connect_timeout_s: For one connection.
        read_timeout_s: For one silence, not for a whole body.
        attempts: Tries of one request, the first included.
    """

    def __init__(
        self, settings: Settings, *, connect_timeout_s: float = 5.0, read_timeout_s: float = 30.0, attempts: int = 4
    ) -> None:
        self._settings = settings
        self._config = Config(
            # boto3 still signs presigned URLs with SigV2 in us-east-1 when nothing is said.
            signature_version="s3v4",
            s3={"addressing_style": "path" if settings.s3_endpoint else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            max_pool_connections=32,
        )
        self._at_rest = _at_rest(settings)
        self._lock = threading.Lock()
        self._clients: dict[tuple[int, str | None], Any] = {}
        self._spent_s = 0.0
        self._counting = threading.Lock()

    def spent_s(self) -> float:
        """Seconds that threads of this process have waited for S3, each for itself."""
        return self._spent_s

    def _spend(self, seconds: float) -> None:
        with self._counting:
            self._spent_s += seconds

    @property
    def client(self) -> Any:
        """The boto3 client, made at its first use."""
        return self._client_of(self._settings.s3_endpoint)

    @property
    def _signer(self) -> Any:
        return self._client_of(self._settings.s3_public_endpoint or self._settings.s3_endpoint)

    def _client_of(self, endpoint: str | None) -> Any:
        with self._lock:
            client = self._clients.get((os.getpid(), endpoint))
            if client is None:
                client = self._clients[os.getpid(), endpoint] = self._new_client(endpoint)
            return client

    def _new_client(self, endpoint: str | None) -> Any:
        secret = self._settings.s3_secret_access_key
        # A session of its own: boto3's default session is not safe in threads.
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=self._settings.s3_region,
            aws_access_key_id=self._settings.s3_access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=self._config,
        )
        events = client.meta.events
        events.register("before-call.s3", _note_start)
        events.register("after-call.s3", self._note_end)
        events.register("after-call-error.s3", self._note_end)
        return client

    def _note_end(self, context: dict[str, Any], **_: Any) -> None:
        self._spend(perf_counter() - context.get(_STARTED, perf_counter()))

    def head(self, ref: ObjectRef) -> ObjectInfo:
        """Size and ETag.

        Raises:
            JobError: ``s3.not_found``, ``s3.no_such_bucket``, ``s3.forbidden``.
            TransientError: S3 is away.
        """
        try:
            with explained("s3:GetObject", ref):
                answer = self.client.head_object(Bucket=ref.bucket, Key=ref.key)
        except JobError as error:
            # HEAD has no body, so its 404 does not say whether the key or the bucket is missing.
            if error.code == "s3.not_found" and not self._has_bucket(ref.bucket):
                raise no_such_bucket(ref) from error
            raise
        return _info(answer, answer["ContentLength"])

    def _has_bucket(self, bucket: str) -> bool:
        with suppress(BotoCoreError):
            try:
                self.client.head_bucket(Bucket=bucket)
            except ClientError as error:
                return int(error.response["ResponseMetadata"]["HTTPStatusCode"]) != 404
        return True

    @contextmanager
    def open(self, ref: ObjectRef, *, offset: int = 0, if_match: str | None = None) -> Iterator[S3Reader]:
        """Stream an object from byte ``offset`` on.

        Raises:
            JobError: As ``head``; ``s3.changed`` when the ETag is not ``if_match``.
            TransientError: S3 is away.
        """
        asked: dict[str, Any] = {"Bucket": ref.bucket, "Key": ref.key}
        if if_match is not None:
            asked["IfMatch"] = f'"{if_match}"'
        if offset:
            info = self.head(ref)
            if if_match is not None and info.etag != if_match:
                raise changed(ref)
            if offset >= info.size_bytes:
                # Servers disagree on how to refuse a range that begins at the end.
                yield S3Reader(ref, info, None, 0, self._spend)
                return
            asked |= {"Range": f"bytes={offset}-", "IfMatch": f'"{info.etag}"'}
        with explained("s3:GetObject", ref):
            answer = self.client.get_object(**asked)
        try:
            info = _info(answer, offset + answer["ContentLength"])
            # Not every server heeds If-Match on GET.
            if if_match is not None and info.etag != if_match:
                raise changed(ref)
            yield S3Reader(ref, info, answer["Body"], answer["ContentLength"], self._spend)
        finally:
            answer["Body"].close()

    def put(
        self, ref: ObjectRef, body: bytes | BinaryIO, *, content_type: str, filename: str | None = None
    ) -> ObjectInfo:
        """Store a small object whole; a file is read from where it stands.

        Raises:
            JobError: ``s3.no_such_bucket``, ``s3.forbidden``.
            TransientError: S3 is away.
        """
        size_bytes = len(body) if isinstance(body, bytes) else _rest_bytes(body)
        with explained("s3:PutObject", ref):
            answer = self.client.put_object(
                Bucket=ref.bucket,
                Key=ref.key,
                Body=body,
                ContentType=content_type,
                **_disposition(filename),
                **self._at_rest,
            )
        return ObjectInfo(size_bytes, answer["ETag"].strip('"'), content_type)

    def start_upload(self, ref: ObjectRef, *, content_type: str, filename: str | None = None) -> S3Upload:
        """Begin a multipart upload; nothing is visible before it is completed. Errors as ``put``."""
        with explained("s3:PutObject", ref):
            answer = self.client.create_multipart_upload(
                Bucket=ref.bucket, Key=ref.key, ContentType=content_type, **_disposition(filename), **self._at_rest
            )
        return S3Upload(self, ref, answer["UploadId"])

    def abort_upload(self, ref: ObjectRef, upload_id: str) -> None:
        """Drop an unfinished upload; unknown ids are fine."""
        try:
            with explained("s3:AbortMultipartUpload", ref):
                self.client.abort_multipart_upload(Bucket=ref.bucket, Key=ref.key, UploadId=upload_id)
        except JobError as error:
            if error.code not in ("s3.no_such_upload", "s3.not_found"):
                raise

    def delete(self, refs: Sequence[ObjectRef]) -> None:
        """Remove objects; missing ones are fine.

        Raises:
            JobError: ``s3.forbidden``, ``s3.no_such_bucket``.
            TransientError: S3 is away or kept some; calling again is safe.
        """
        for bucket, group in groupby(sorted(refs, key=lambda ref: ref.bucket), key=lambda ref: ref.bucket):
            of_bucket = list(group)
            for start in range(0, len(of_bucket), KEYS_PER_DELETE):
                self._delete_some(bucket, of_bucket[start : start + KEYS_PER_DELETE])

    def _delete_some(self, bucket: str, refs: Sequence[ObjectRef]) -> None:
        with explained("s3:DeleteObject", refs[0]):
            answer = self.client.delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": ref.key} for ref in refs], "Quiet": True}
            )
        kept = [error for error in answer.get("Errors", []) if error.get("Code") != "NoSuchKey"]
        if kept:
            raise TransientError(
                f"S3 kept {len(kept)} of {len(refs)} objects in bucket {bucket!r}, the first, "
                f"{kept[0].get('Key')!r}, with {kept[0].get('Code')}",
                code="s3.unavailable",
            )

    def presign_get(self, ref: ObjectRef, *, ttl_s: int) -> str:
        """A URL, good for ``ttl_s`` seconds, that downloads the object without a key. Talks to nobody."""
        return self._presigned("get_object", {"Bucket": ref.bucket, "Key": ref.key}, ttl_s)

    def presign_put(
        self, ref: ObjectRef, *, ttl_s: int, content_type: str | None = None, size_bytes: int | None = None
    ) -> str:
        """A URL that stores the object by one PUT, which must send what is given of Content-Type and Content-Length."""
        asked = {"Bucket": ref.bucket, "Key": ref.key, **_typed(content_type), **_long(size_bytes)}
        return self._presigned("put_object", asked, ttl_s)

    def _presigned(self, operation: str, asked: Mapping[str, object], ttl_s: int) -> str:
        with explained("s3:GetObject", ObjectRef(str(asked["Bucket"]), str(asked["Key"]))):
            url: str = self._signer.generate_presigned_url(operation, Params=asked, ExpiresIn=ttl_s)
        return url

    def start_presigned_multipart(
        self, ref: ObjectRef, *, parts: Sequence[int | None], ttl_s: int, content_type: str | None = None
    ) -> tuple[str, list[str]]:
        """An upload id and one PUT URL per part, in order, each for the bytes said, if any. Errors as ``put``."""
        with explained("s3:PutObject", ref):
            answer = self.client.create_multipart_upload(
                Bucket=ref.bucket, Key=ref.key, **_typed(content_type), **self._at_rest
            )
        upload_id: str = answer["UploadId"]
        asked = {"Bucket": ref.bucket, "Key": ref.key, "UploadId": upload_id}
        return upload_id, [
            self._presigned("upload_part", {**asked, "PartNumber": number, **_long(size_bytes)}, ttl_s)
            for number, size_bytes in enumerate(parts, start=1)
        ]

    def complete_multipart(self, ref: ObjectRef, upload_id: str, parts: Sequence[Mapping[str, object]]) -> ObjectInfo:
        """Join the parts and HEAD the object.

        Doing it again is safe: an upload that is gone counts as joined when its object is there, as keys are never
        used for two uploads at a time.

        Raises:
            JobError: ``s3.no_such_upload``; ``s3.parts_invalid``; ``s3.refused`` for parts that S3 does not hold.
            TransientError: S3 is away.
        """
        try:
            with explained("s3:PutObject", ref):
                self.client.complete_multipart_upload(
                    Bucket=ref.bucket,
                    Key=ref.key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": checked_parts(parts)},
                )
        except JobError as gone:
            if gone.code != "s3.no_such_upload":
                raise
            try:
                return self.head(ref)
            except JobError as error:
                raise (gone if error.code == "s3.not_found" else error) from None
        return self.head(ref)

    def unfinished(self, bucket: str) -> Iterator[Unfinished]:
        """Every multipart upload in progress, fetched a thousand at a time. Errors as ``list``."""
        asked: dict[str, Any] = {"Bucket": bucket}
        while True:
            with explained("s3:ListBucketMultipartUploads", ObjectRef(bucket, "")):
                page = self.client.list_multipart_uploads(**asked)
            for one in page.get("Uploads", []):
                yield Unfinished(ObjectRef(bucket, one["Key"]), one["UploadId"], one["Initiated"])
            if not page.get("IsTruncated"):
                return
            asked |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def list(self, bucket: str, prefix: str) -> Iterator[tuple[str, ObjectInfo]]:
        """Keys below ``prefix``, in order, fetched a thousand at a time."""
        asked: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
        while True:
            with explained("s3:ListBucket", ObjectRef(bucket, "")):
                page = self.client.list_objects_v2(**asked)
            for entry in page.get("Contents", []):
                yield entry["Key"], ObjectInfo(entry["Size"], entry["ETag"].strip('"'))
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]


def _note_start(context: dict[str, Any], **_: Any) -> None:
    context[_STARTED] = perf_counter()


def _info(answer: Mapping[str, Any], size_bytes: int) -> ObjectInfo:
    return ObjectInfo(size_bytes, answer["ETag"].strip('"'), answer.get("ContentType"), answer.get("Metadata"))


def _at_rest(settings: Settings) -> dict[str, str]:
    """How S3 itself is to encrypt what we write."""
    asked = {"ServerSideEncryption": settings.s3_server_side_encryption, "SSEKMSKeyId": settings.s3_kms_key_id}
    return {name: value for name, value in asked.items() if value is not None}


def _rest_bytes(body: BinaryIO) -> int:
    start = body.tell()
    size_bytes = body.seek(0, os.SEEK_END) - start
    body.seek(start)
    return size_bytes


def _typed(content_type: str | None) -> dict[str, object]:
    return {} if content_type is None else {"ContentType": content_type}


def _long(size_bytes: int | None) -> dict[str, object]:
    return {} if size_bytes is None else {"ContentLength": size_bytes}


def _disposition(filename: str | None) -> dict[str, str]:
    if filename is None:
        return {}
    return {"ContentDisposition": f"attachment; filename*=UTF-8''{quote(filename, safe='')}"}
