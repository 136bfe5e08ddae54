"""The S3 adapter against a server that verifies signatures, and behind a proxy that misbehaves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest
import requests
from faulty_s3 import FaultyS3
from pydantic import SecretStr

from app.domain.errors import JobError, TransientError
from app.domain.ports import ObjectRef
from app.storage.multipart import PART_BYTES
from app.storage.s3 import S3Store
from config.settings import Settings


@pytest.fixture
def ref(settings: Settings) -> ObjectRef:
    return ObjectRef(settings.s3_bucket, f"tests/{os.urandom(8).hex()}.csv")


@pytest.fixture
def store(settings: Settings) -> S3Store:
    return S3Store(settings)


@pytest.fixture
def proxy(settings: Settings) -> Iterator[FaultyS3]:
    proxy = FaultyS3(str(settings.s3_endpoint))
    yield proxy
    proxy.close()


@pytest.fixture
def shaky(settings: Settings, proxy: FaultyS3) -> S3Store:
    through_proxy = settings.model_copy(update={"s3_endpoint": proxy.url})
    return S3Store(through_proxy, connect_timeout_s=1, read_timeout_s=0.5, attempts=2)


def test_what_is_put_comes_back_whole_and_from_any_offset(store: S3Store, ref: ObjectRef) -> None:
    body = os.urandom(300_000)

    info = store.put(ref, body, content_type="text/csv", filename="é.csv")

    assert store.head(ref).etag == info.etag
    for offset in (0, 1, 299_999):
        with store.open(ref, offset=offset) as reader:
            assert reader.read() == body[offset:]
            assert reader.info.size_bytes == len(body)


def test_an_offset_at_or_behind_the_end_reads_nothing(store: S3Store, ref: ObjectRef) -> None:
    store.put(ref, b"abc", content_type="text/csv")

    with store.open(ref, offset=3) as at_end, store.open(ref, offset=9) as behind:
        assert (at_end.read(), behind.read(10)) == (b"", b"")


def test_an_object_is_read_in_pieces_of_the_size_asked_for(store: S3Store, ref: ObjectRef) -> None:
    store.put(ref, b"0123456789", content_type="text/csv")

    with store.open(ref) as reader:
        pieces = [reader.read(4), reader.read(4), reader.read(4), reader.read(4)]

    assert pieces == [b"0123", b"4567", b"89", b""]


def test_a_missing_key_and_a_missing_bucket_are_told_apart(store: S3Store, ref: ObjectRef) -> None:
    elsewhere = ObjectRef("no-such-bucket-here", "a.csv")

    for missing, code in ((ref, "s3.not_found"), (elsewhere, "s3.no_such_bucket")):
        with pytest.raises(JobError) as by_head:
            store.head(missing)
        with pytest.raises(JobError) as by_open, store.open(missing):
            pass
        assert by_head.value.code == by_open.value.code == code
        assert missing.bucket in by_head.value.detail
        assert missing.key in by_head.value.detail
        assert not isinstance(by_head.value, TransientError)


def test_an_object_that_changed_is_refused_at_the_start_and_in_the_middle(store: S3Store, ref: ObjectRef) -> None:
    first = store.put(ref, b"first,file", content_type="text/csv")
    store.put(ref, b"second,one", content_type="text/csv")

    for offset in (0, 3):
        with pytest.raises(JobError) as error, store.open(ref, offset=offset, if_match=first.etag):
            pass
        assert error.value.code == "s3.changed"


@pytest.mark.feature("S4-99")
def test_wrong_credentials_are_permanent_and_say_no_secret(settings: Settings, ref: ObjectRef) -> None:
    wrong = settings.model_copy(update={"s3_secret_access_key": SecretStr("wrong-secret-canary")})

    with pytest.raises(JobError) as error:
        S3Store(wrong).put(ref, b"x", content_type="text/csv")

    assert error.value.code == "s3.forbidden"
    assert not isinstance(error.value, TransientError)
    assert "s3:PutObject" in error.value.detail
    assert "canary" not in repr(error.value) + str(error.value.hint) + repr(error.value.__cause__)


def test_a_multipart_upload_is_invisible_until_it_is_completed(store: S3Store, ref: ObjectRef) -> None:
    body = os.urandom(PART_BYTES * 2 + 12_345)
    upload = store.start_upload(ref, content_type="text/csv")
    for start in range(0, len(body), 1_000_003):
        upload.write(body[start : start + 1_000_003])
    parts = upload.finish_parts()
    with pytest.raises(JobError, match="no object"):
        store.head(ref)

    info = upload.complete(parts)

    assert [part["PartNumber"] for part in parts] == [1, 2, 3]
    assert info.size_bytes == len(body)
    with store.open(ref) as reader:
        assert hashlib.sha256(reader.read()).digest() == hashlib.sha256(body).digest()


def test_one_write_larger_than_parts_is_cut_into_them(store: S3Store, ref: ObjectRef) -> None:
    body = os.urandom(PART_BYTES * 2)

    upload = store.start_upload(ref, content_type="text/csv")
    upload.write(body)
    parts = upload.finish_parts()
    upload.complete(parts)

    assert len(parts) == 2
    with store.open(ref) as reader:
        assert reader.read() == body


def test_completing_twice_is_the_same_as_once(store: S3Store, ref: ObjectRef) -> None:
    upload = store.start_upload(ref, content_type="text/csv")
    upload.write(b"a,b\n")
    parts = upload.finish_parts()

    once = store.complete_multipart(ref, upload.upload_id, parts)
    again = store.complete_multipart(ref, upload.upload_id, parts)

    assert once == again


def test_an_aborted_upload_cannot_be_completed_and_aborting_again_is_fine(store: S3Store, ref: ObjectRef) -> None:
    upload = store.start_upload(ref, content_type="text/csv")
    upload.write(b"a,b\n")
    parts = upload.finish_parts()
    upload.abort()
    store.abort_upload(ref, upload.upload_id)
    upload.abort()

    with pytest.raises(JobError) as error:
        store.complete_multipart(ref, upload.upload_id, parts)

    assert error.value.code == "s3.no_such_upload"


def test_parts_with_a_gap_are_refused(store: S3Store, ref: ObjectRef) -> None:
    upload_id, _ = store.start_presigned_multipart(ref, parts=[None, None], ttl_s=60)

    with pytest.raises(JobError) as error:
        store.complete_multipart(ref, upload_id, [{"PartNumber": 2, "ETag": "x"}])

    assert error.value.code == "s3.parts_invalid"


@pytest.mark.feature("S0-20")
def test_presigned_urls_work_and_tampered_or_expired_ones_do_not(store: S3Store, ref: ObjectRef) -> None:
    put_url = store.presign_put(ref, ttl_s=60, content_type="text/csv")
    stored = requests.put(put_url, data=b"a,b\n1,2\n", headers={"Content-Type": "text/csv"}, timeout=5)
    get_url = store.presign_get(ref, ttl_s=60)
    name = ref.key.rsplit("/", 1)[1]

    good = requests.get(get_url, timeout=5)
    other_key = requests.get(get_url.replace(name, "other.csv"), timeout=5)
    longer = requests.get(get_url.replace("X-Amz-Expires=60", "X-Amz-Expires=604800"), timeout=5)
    as_put = requests.put(get_url, data=b"evil", timeout=5)

    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in get_url
    assert (stored.status_code, good.status_code, good.content) == (200, 200, b"a,b\n1,2\n")
    assert [answer.status_code for answer in (other_key, longer, as_put)] == [403, 403, 403]


def test_presigned_urls_carry_the_public_endpoint(settings: Settings, ref: ObjectRef) -> None:
    public = settings.model_copy(update={"s3_public_endpoint": "https://files.example.com"})

    url = S3Store(public).presign_get(ref, ttl_s=60)

    assert url.startswith(f"https://files.example.com/{ref.bucket}/tests/")


def test_parts_sent_by_presigned_urls_are_joined(store: S3Store, ref: ObjectRef) -> None:
    bodies = [os.urandom(5 * 2**20), b"the end"]
    upload_id, urls = store.start_presigned_multipart(ref, parts=[5 * 2**20, None], ttl_s=60)
    parts = [
        {"PartNumber": number, "ETag": requests.put(url, data=body, timeout=10).headers["ETag"]}
        for number, (url, body) in enumerate(zip(urls, bodies, strict=True), start=1)
    ]

    info = store.complete_multipart(ref, upload_id, parts)

    assert info.size_bytes == sum(map(len, bodies))
    with store.open(ref) as reader:
        assert reader.read() == b"".join(bodies)


def test_objects_are_listed_in_order_and_deleted_with_missing_ones(store: S3Store, settings: Settings) -> None:
    prefix = f"list/{os.urandom(4).hex()}/"
    refs = [ObjectRef(settings.s3_bucket, f"{prefix}{name}") for name in ("b", "a", "c")]
    for ref in refs:
        store.put(ref, b"1", content_type="text/plain")

    before = [key for key, _ in store.list(settings.s3_bucket, prefix)]
    store.delete([*refs, ObjectRef(settings.s3_bucket, f"{prefix}missing")])

    assert before == [f"{prefix}a", f"{prefix}b", f"{prefix}c"]
    assert list(store.list(settings.s3_bucket, prefix)) == []


@pytest.mark.parametrize("fault", ["500", "503", "hang"])
def test_a_server_that_keeps_failing_is_transient(shaky: S3Store, proxy: FaultyS3, ref: ObjectRef, fault: str) -> None:
    proxy.fault = lambda method, path: fault

    with pytest.raises(TransientError) as error:
        shaky.put(ref, b"x", content_type="text/csv")

    assert error.value.code == "s3.unavailable"
    assert len(proxy.requests) == 2


def test_one_failure_is_retried_within_the_call(shaky: S3Store, proxy: FaultyS3, ref: ObjectRef) -> None:
    faults = iter(["503"])
    proxy.fault = lambda method, path: next(faults, None)

    shaky.put(ref, b"x", content_type="text/csv")

    assert shaky.head(ref).size_bytes == 1


def test_a_server_that_is_away_is_transient(settings: Settings, ref: ObjectRef) -> None:
    away = S3Store(settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:1"}), attempts=1)

    with pytest.raises(TransientError):
        away.head(ref)


@pytest.mark.parametrize("size", [-1, 65_536])
def test_a_body_that_ends_early_is_noticed(
    store: S3Store, shaky: S3Store, proxy: FaultyS3, ref: ObjectRef, size: int
) -> None:
    store.put(ref, os.urandom(1_000_000), content_type="text/csv")
    proxy.fault = lambda method, path: "truncate" if method == "GET" else None

    with shaky.open(ref) as reader, pytest.raises(TransientError):
        list(iter(lambda: reader.read(size), b""))


def test_a_part_that_cannot_be_sent_fails_the_upload(shaky: S3Store, proxy: FaultyS3, ref: ObjectRef) -> None:
    upload = shaky.start_upload(ref, content_type="text/csv")
    proxy.fault = lambda method, path: "503" if method == "PUT" else None
    upload.write(b"x" * (PART_BYTES + 1))

    with pytest.raises(TransientError):
        upload.finish_parts()

    upload.abort()
    with pytest.raises(JobError, match="no object"):
        shaky.head(ref)
