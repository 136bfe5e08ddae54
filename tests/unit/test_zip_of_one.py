"""Zip files that are written as they come."""

from __future__ import annotations

import io
import zipfile
from random import Random

import pytest

from app.dataplane.zip_of_one import ZipOfOne

random = Random(3)


@pytest.mark.parametrize("body", [b"", b"x", random.randbytes(300_000) + b"a" * 300_000])
def test_any_reader_of_zip_finds_the_one_file(body: bytes) -> None:
    packer = ZipOfOne("rows ü.ndjson")

    packed = b"".join(packer.compress(body[at : at + 70_000]) for at in range(0, len(body), 70_000)) + packer.flush()

    found = zipfile.ZipFile(io.BytesIO(packed))
    assert found.testzip() is None
    assert found.namelist() == ["rows ü.ndjson"]
    assert found.read("rows ü.ndjson") == body
    assert len(packed) < max(1_000, len(body))
