"""The zip file that is written as it comes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from app.dataplane.zip_stream import ZipStream

FAR = 5 * 2**30


def test_members_behind_four_gibibytes_are_found(tmp_path: Path) -> None:
    packer = ZipStream()
    near = packer.add("near", b"1" * 100)
    packer._bytes = FAR  # as if a member of that size lay between
    far = packer.begin("far") + packer.compress(b"2" * 100) + packer.end() + packer.add("last", b"3") + packer.finish()

    with (tmp_path / "sparse.zip").open("wb") as file:
        file.write(near)
        file.seek(FAR)
        file.write(far)

    with zipfile.ZipFile(tmp_path / "sparse.zip") as found:
        assert found.testzip() is None
        assert {name: found.read(name)[:1] for name in found.namelist()} == {"near": b"1", "far": b"2", "last": b"3"}
