"""What S3's refusals and silences mean: whether another attempt may help, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from app.domain.errors import JobError, TransientError
from app.domain.ports import ObjectRef
from app.storage.s3 import S3Store
from app.storage.s3_errors import explained
from config.settings import Settings

REF = ObjectRef("bucket", "a/b.csv")


def refused(status: int, code: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (refused(404, "NoSuchKey"), JobError, "s3.not_found"),
        (refused(404, "NoSuchBucket"), JobError, "s3.no_such_bucket"),
        (refused(404, "NoSuchUpload"), JobError, "s3.no_such_upload"),
        (refused(412, "PreconditionFailed"), JobError, "s3.changed"),
        (refused(403, "AccessDenied"), JobError, "s3.forbidden"),
        (refused(400, "ExpiredToken"), JobError, "s3.forbidden"),
        (refused(400, "InvalidPart"), JobError, "s3.refused"),
        (refused(500, "InternalError"), TransientError, "s3.unavailable"),
        (refused(429), TransientError, "s3.unavailable"),
        (refused(400, "RequestTimeout"), TransientError, "s3.unavailable"),
        (NoCredentialsError(), JobError, "s3.forbidden"),
        (ParamValidationError(report="bad bucket"), JobError, "s3.refused"),
        (EndpointConnectionError(endpoint_url="http://s3"), TransientError, "s3.unavailable"),
        (ReadTimeoutError(endpoint_url="http://s3"), TransientError, "s3.unavailable"),
        (ConnectionResetError(), TransientError, "s3.unavailable"),
    ],
)
def test_every_answer_of_s3_is_permanent_or_worth_another_attempt(
    error: Exception, kind: type[JobError], code: str
) -> None:
    with pytest.raises(JobError) as told, explained("s3:GetObject", REF):
        raise error

    assert (type(told.value), told.value.code) == (kind, code)
    assert "bucket" in told.value.detail


class Client:
    """A boto3 client that answers as told."""

    def __init__(self, **answers: Callable[..., Any]) -> None:
        self.__dict__.update(answers)


def a_store(client: Client) -> S3Store:
    store = S3Store(Settings())
    store._client_of = lambda _: client  # type: ignore[method-assign]  # what is sent is not of interest here
    return store


def raising(error: Exception) -> Callable[..., Any]:
    def call(**_: object) -> Any:
        raise error

    return call


def test_objects_that_s3_kept_are_worth_another_attempt_and_missing_ones_are_not() -> None:
    answers = [
        {"Errors": [{"Key": "a", "Code": "NoSuchKey"}]},
        {"Errors": [{"Key": "a", "Code": "NoSuchKey"}, {"Key": "b", "Code": "InternalError"}]},
    ]
    store = a_store(Client(delete_objects=lambda **_: answers.pop(0)))

    store.delete([REF])
    with pytest.raises(TransientError, match="kept 1 of 1 objects in bucket 'bucket', the first, 'b'"):
        store.delete([REF])


def test_many_objects_go_a_thousand_at_a_time_and_bucket_by_bucket() -> None:
    asked: list[tuple[str, int]] = []

    def delete_objects(**given: Any) -> dict[str, Any]:
        asked.append((given["Bucket"], len(given["Delete"]["Objects"])))
        return {}

    refs = [ObjectRef("b", str(number)) for number in range(1_001)] + [ObjectRef("a", "x")]

    a_store(Client(delete_objects=delete_objects)).delete(refs)

    assert asked == [("a", 1), ("b", 1_000), ("b", 1)]


@pytest.mark.parametrize("code", ["NoSuchUpload", "NoSuchKey"])
def test_an_upload_that_is_gone_needs_no_abort(code: str) -> None:
    a_store(Client(abort_multipart_upload=raising(refused(404, code)))).abort_upload(REF, "id")


@pytest.mark.feature("S4-99")
def test_an_abort_that_is_not_allowed_is_told() -> None:
    store = a_store(Client(abort_multipart_upload=raising(refused(403, "AccessDenied"))))

    with pytest.raises(JobError, match="s3:AbortMultipartUpload"):
        store.abort_upload(REF, "id")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refused(404), "s3.no_such_bucket"),
        (refused(403), "s3.not_found"),
        (EndpointConnectionError(endpoint_url="http://s3"), "s3.not_found"),
    ],
    ids=["no bucket", "may not ask", "no answer"],
)
def test_a_missing_object_is_a_missing_bucket_only_where_s3_says_so(answer: Exception, code: str) -> None:
    store = a_store(Client(head_object=raising(refused(404)), head_bucket=raising(answer)))

    with pytest.raises(JobError) as told:
        store.head(REF)

    assert told.value.code == code


def test_a_long_listing_is_fetched_page_by_page() -> None:
    entry = {"Size": 1, "ETag": '"e"'}
    pages = [
        {"Contents": [{"Key": "a", **entry}], "IsTruncated": True, "NextContinuationToken": "t"},
        {"Contents": [{"Key": "b", **entry}]},
    ]
    asked: list[str | None] = []

    def list_objects_v2(**given: Any) -> dict[str, Any]:
        asked.append(given.get("ContinuationToken"))
        return pages.pop(0)

    found = list(a_store(Client(list_objects_v2=list_objects_v2)).list("bucket", ""))

    assert [key for key, _ in found] == ["a", "b"]
    assert asked == [None, "t"]


@pytest.mark.parametrize(("head", "code"), [(404, "s3.no_such_upload"), (403, "s3.forbidden")])
def test_an_upload_that_is_gone_was_joined_only_when_its_object_is_there(head: int, code: str) -> None:
    store = a_store(
        Client(
            complete_multipart_upload=raising(refused(404, "NoSuchUpload")),
            head_object=raising(refused(head)),
            head_bucket=lambda **_: {},
        )
    )

    with pytest.raises(JobError) as told:
        store.complete_multipart(REF, "id", [{"PartNumber": 1, "ETag": "e"}])

    assert told.value.code == code
