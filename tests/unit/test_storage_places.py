"""Which object a tenant's key means, and which keys are refused."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import ForbiddenError, InvalidRequestError
from app.domain.places import MAX_NAME_BYTES, root_of
from app.domain.ports import ObjectRef
from app.storage.multipart import PART_BYTES, part_bytes
from app.storage.scope import export_key, resolve, safe_name
from config.settings import Settings

SETTINGS = Settings(s3_bucket="own", s3_allowed_buckets=frozenset({"shared"}))


@pytest.mark.parametrize(
    ("tenant", "bucket", "key", "expected"),
    [
        ("default", None, "uploads/a.csv", ObjectRef("own", "uploads/a.csv")),
        ("default", "own", "a.csv", ObjectRef("own", "a.csv")),
        ("acme", None, "uploads/a.csv", ObjectRef("own", "t/acme/uploads/a.csv")),
        ("acme", None, "t/acme/uploads/a.csv", ObjectRef("own", "t/acme/uploads/a.csv")),
        ("acme", "shared", "a.csv", ObjectRef("shared", "t/acme/a.csv")),
        ("default", "shared", "a.csv", ObjectRef("shared", "a.csv")),
        ("default", None, "tables/t/other/a.csv", ObjectRef("own", "tables/t/other/a.csv")),
    ],
)
def test_a_key_is_relative_to_the_tenants_root(tenant: str, bucket: str | None, key: str, expected: ObjectRef) -> None:
    assert resolve(SETTINGS, tenant, bucket, key) == expected


@pytest.mark.feature("S4-132")
def test_a_bucket_that_is_not_allowed_is_forbidden() -> None:
    with pytest.raises(ForbiddenError) as error:
        resolve(SETTINGS, "acme", "someone-elses", "a.csv")

    assert error.value.code == "s3.bucket_forbidden"
    assert error.value.status == 403


@pytest.mark.feature("S4-132")
@pytest.mark.parametrize("tenant", ["default", "acme"])
@pytest.mark.parametrize(
    "key",
    [
        "../a",
        "a/../b",
        "/a",
        "a//b",
        "./a",
        "a/./b",
        "a\0b",
        "a\nb",
        "t/other/a",
        "t/other",
        "t//other/a",
        "t/./other/a",
    ],
)
def test_a_key_that_leaves_the_tenants_root_is_forbidden(tenant: str, key: str) -> None:
    with pytest.raises(ForbiddenError) as error:
        resolve(SETTINGS, tenant, None, key)

    assert error.value.code == "s3.prefix_forbidden"
    assert error.value.status == 403


@pytest.mark.parametrize("key", ["", "a" * 1025, "é" * 600, "a\ud800"])
def test_a_key_that_s3_cannot_hold_is_invalid(key: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        resolve(SETTINGS, "default", None, key)

    assert error.value.code == "s3.key_invalid"


@given(key=st.text(max_size=60), tenant=st.sampled_from(["default", "acme", "acm"]))
def test_no_key_reaches_another_tenants_place(key: str, tenant: str) -> None:
    try:
        ref = resolve(SETTINGS, tenant, None, key)
    except (ForbiddenError, InvalidRequestError):
        return

    assert ref.key.startswith(root_of(tenant))
    assert tenant != "default" or not ref.key.startswith("t/") or ref.key == "t/"
    assert not {"", ".", ".."} & set(ref.key.removesuffix("/").split("/"))


@given(filename=st.text(max_size=400))
def test_a_safe_name_is_one_short_ascii_segment(filename: str) -> None:
    name = safe_name(filename)

    assert 0 < len(name) <= MAX_NAME_BYTES
    assert name.isascii()
    assert not set(name) & set('/\\ %"\0')
    assert name not in (".", "..")


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("contacts.csv", "contacts.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\lists\\my list (1).csv", "my_list_1_.csv"),
        ("Kontakte Größe.csv.gz", "Kontakte_Gr_e.csv.gz"),
        ("日本", "file"),
        (".csv", "csv"),
    ],
)
def test_a_safe_name_keeps_what_it_can(filename: str, expected: str) -> None:
    assert safe_name(filename) == expected


@pytest.mark.feature("S4-39", "S4-80")
def test_an_exports_key_is_the_prefix_and_the_jobs_id() -> None:
    job_id = UUID(int=5)

    assert export_key(SETTINGS, job_id, ".csv.gz") == f"uploads/{job_id}.csv.gz"
    assert export_key(Settings(s3_upload_file_path_prefix=""), job_id, ".csv") == f"{job_id}.csv"


def test_ten_thousand_parts_hold_at_least_four_hundred_gigabytes() -> None:
    assert part_bytes(1) == part_bytes(2_000) == PART_BYTES
    assert sum(part_bytes(number) for number in range(1, 10_001)) > 400 * 10**9
