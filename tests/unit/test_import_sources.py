from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from app.dataplane import sources
from app.dataplane.compression import Compression, GunzippedObject, Limits, compression_of, unpacked
from app.dataplane.origins import S3Origin
from app.dataplane.sources import StoredObject
from app.domain.errors import JobError, TransientError
from app.domain.ports import ObjectInfo, ObjectRef, ObjectStore

REF = ObjectRef("bucket", "key")


class BreakingStore:
    """An object whose streams each end with an error after ``breaks_after`` bytes; ``opened`` lists their offsets."""

    def __init__(self, data: bytes, *, breaks_after: int | None = None, etag: str = "one") -> None:
        self.data = data
        self.breaks_after = breaks_after
        self.etag = etag
        self.opened: list[int] = []

    @property
    def info(self) -> ObjectInfo:
        return ObjectInfo(size_bytes=len(self.data), etag=self.etag)

    @contextmanager
    def open(self, ref: ObjectRef, *, offset: int = 0, if_match: str | None = None) -> Iterator[Any]:
        self.opened.append(offset)
        yield _Reader(self, offset)


class _Reader:
    def __init__(self, store: BreakingStore, offset: int) -> None:
        self.info = store.info
        self._store = store
        self._at = offset
        self._left = store.breaks_after

    def read(self, size: int = -1, /) -> bytes:
        if self._left is not None:
            if self._left == 0:
                raise TransientError("the connection broke")
            size = min(size, self._left)
            self._left -= size
        data = self._store.data[self._at : self._at + size]
        self._at += len(data)
        return data


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.time, "sleep", lambda seconds: None)


def stored(store: BreakingStore, **where: int) -> StoredObject:
    return StoredObject(cast(ObjectStore, store), REF, ObjectInfo(len(store.data), "one"), **where)


def origin(store: BreakingStore) -> S3Origin:
    return S3Origin(cast(ObjectStore, store), REF)


def gunzipped(store: BreakingStore, *, max_bytes: int = 1 << 40, max_ratio: float = 1e9) -> GunzippedObject:
    return GunzippedObject(stored(store), Limits(max_bytes, max_ratio))


def all_of(source: Any, size: int = 1_000) -> bytes:
    return b"".join(iter(lambda: source.read(size), b""))


def test_a_stream_that_breaks_goes_on_where_it_broke() -> None:
    store = BreakingStore(os.urandom(5_000), breaks_after=1_700)

    read = all_of(stored(store, offset=100))

    assert read == store.data[100:]
    assert store.opened == [100, 1_800, 3_500]


def test_a_gzip_stream_that_breaks_goes_on_too() -> None:
    plain = os.urandom(4_000)
    store = BreakingStore(gzip.compress(plain), breaks_after=900)

    assert all_of(gunzipped(store)) == plain
    assert len(store.opened) > 3


def test_a_stream_that_breaks_in_one_place_again_and_again_is_transient() -> None:
    store = BreakingStore(b"x" * 10, breaks_after=0)

    with pytest.raises(TransientError, match="broke"):
        stored(store).read(5)

    assert len(store.opened) == 6


def test_a_body_that_ends_early_is_not_taken_for_the_end() -> None:
    store = BreakingStore(b"x" * 10)
    source = StoredObject(cast(ObjectStore, store), REF, ObjectInfo(20, "one"))
    source.read(100)

    with pytest.raises(TransientError, match="after 10 bytes, expected 20"):
        source.read(100)


def test_another_etag_is_a_changed_object() -> None:
    store = BreakingStore(b"x" * 10, breaks_after=4)
    source = stored(store)
    source.read(4)
    store.etag = "two"

    with pytest.raises(JobError) as raised:
        source.read(4)

    assert raised.value.code == "s3.changed"


def test_gzip_members_follow_one_another_and_padding_ends_them() -> None:
    store = BreakingStore(gzip.compress(b"one,") + gzip.compress(b"") + gzip.compress(b"two") + b"\0" * 600)

    assert all_of(gunzipped(store), 2) == b"one,two"


@pytest.mark.parametrize(
    "data",
    [b"plain text", gzip.compress(b"x" * 5_000)[:-4], gzip.compress(b"x") + b"garbage", b"\x1f\x8b", b""],
    ids=["plain", "cut off", "followed by garbage", "two bytes", "empty"],
)
def test_what_is_no_whole_gzip_is_corrupt(data: bytes) -> None:
    with pytest.raises(JobError) as raised:
        all_of(gunzipped(BreakingStore(data)))

    assert raised.value.code == "source.corrupt"


@pytest.mark.parametrize(
    ("limits", "most"), [({"max_bytes": 1_000_000}, 1_100_000), ({"max_ratio": 200.0}, 10_000_000)]
)
def test_a_bomb_stops_at_either_limit_before_it_is_unpacked(limits: dict[str, Any], most: int) -> None:
    source = gunzipped(BreakingStore(gzip.compress(b"\0" * 50_000_000)), **limits)
    pieces: list[bytes] = []

    with pytest.raises(JobError) as raised:
        pieces.extend(iter(lambda: source.read(65_536), b""))

    assert raised.value.code == "source.bomb"
    assert sum(map(len, pieces)) < most


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_source_begins_at_any_byte_of_what_is_in_it(gzipped: bool) -> None:
    plain = os.urandom(3_000_000)
    store = BreakingStore(gzip.compress(plain, 1) if gzipped else plain)

    how = Compression.GZIP if gzipped else Compression.NONE
    source = unpacked(origin(store), store.info, how, offset=2_500_000, limits=Limits(1 << 30, 200))

    assert all_of(source, 100_000) == plain[2_500_000:]


@pytest.mark.parametrize(
    ("data", "answer"),
    [(gzip.compress(b"x"), "gzip"), (b"a,b", "none"), (b"", "none"), (b"\x1f", "none")],
    ids=["gzip", "text", "empty", "one byte"],
)
def test_gzip_is_known_by_its_first_bytes(data: bytes, answer: str) -> None:
    store = BreakingStore(data)

    assert compression_of(origin(store), store.info) == answer
