"""Encrypted files: what was written comes back, whole or in ranges, and nothing else ever does."""

from __future__ import annotations

import io
from random import Random

import pytest

from app.domain.errors import JobError
from app.security.master_keys import MasterKeys
from app.security.sealed_files import FRAME_BYTES, SEALED_FRAME_BYTES, SealedFile, Sealer, open_sealed

KEYS = MasterKeys(["k" * 32])
CONTEXT = "acme/job/file.csv.sealed"
SIZES = [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES, 3 * FRAME_BYTES + 5]
random = Random(7)


def written(body: bytes, keys: MasterKeys = KEYS) -> bytes:
    sealer = Sealer(keys, context=CONTEXT)
    pieces = [sealer.header]
    left = memoryview(body)
    while left:
        size = random.choice([1, 1000, FRAME_BYTES, 2 * FRAME_BYTES + 1])
        pieces.append(sealer.seal(left[:size]))
        left = left[size:]
    return b"".join([*pieces, sealer.finish()])


def opened(file: bytes, keys: MasterKeys = KEYS, context: str | None = CONTEXT) -> SealedFile:
    return open_sealed(keys, io.BytesIO(file), sealed_bytes=len(file), context=context)


def read(file: bytes, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(opened(file).read(lambda offset: io.BytesIO(file[offset:]), start, end))


@pytest.mark.feature("S0-30")
@pytest.mark.parametrize("size", SIZES)
def test_what_was_written_comes_back_whole_and_in_any_range(size: int) -> None:
    body = random.randbytes(size)

    file = written(body)

    assert read(file) == body
    assert opened(file).size_bytes == size
    assert body[:100] not in file or size < 2
    cuts = sorted(
        {0, size, *(min(size, cut) for cut in (1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, size - 1) if cut >= 0)}
    )
    for start in cuts:
        for end in (cut for cut in cuts if cut > start):
            assert read(file, start, end) == body[start:end]


def test_a_range_reads_only_the_frames_it_needs() -> None:
    file = written(random.randbytes(5 * FRAME_BYTES))
    sealed = opened(file)
    offsets: list[int] = []

    pieces = sealed.read(
        lambda offset: (offsets.append(offset), io.BytesIO(file[offset:]))[1], 3 * FRAME_BYTES, 3 * FRAME_BYTES + 1
    )

    assert [len(piece) for piece in pieces] == [1]
    assert offsets == [sealed.header_bytes + 3 * SEALED_FRAME_BYTES]


@pytest.mark.feature("S0-30")
def test_every_flipped_byte_is_noticed() -> None:
    file = written(random.randbytes(2 * FRAME_BYTES + 9))
    header_bytes = opened(file).header_bytes
    places = [
        *range(header_bytes),
        header_bytes,
        header_bytes + FRAME_BYTES,
        len(file) - 1,
        random.randrange(len(file)),
    ]

    for place in places:
        changed = bytearray(file)
        changed[place] ^= 1
        with pytest.raises(JobError) as caught:
            read(bytes(changed))
        assert caught.value.code in ("file.tampered", "file.not_sealed", "master_key.unknown")


@pytest.mark.feature("S0-30")
def test_frames_that_are_missing_doubled_moved_or_anothers_are_noticed() -> None:
    file = written(random.randbytes(3 * FRAME_BYTES))
    other = written(random.randbytes(3 * FRAME_BYTES))
    at = opened(file).header_bytes
    header = file[:at]
    one, two, three = (file[at + n * SEALED_FRAME_BYTES : at + (n + 1) * SEALED_FRAME_BYTES] for n in range(3))
    forged = {
        "cut off": [one, two],
        "cut off in a frame": [one, two, three[:-1]],
        "empty": [],
        "one is missing": [one, three],
        "doubled": [one, two, three, three],
        "moved": [two, one, three],
        "another file's": [one, other[at + SEALED_FRAME_BYTES : at + 2 * SEALED_FRAME_BYTES], three],
        "longer": [one, two, three, b"x"],
    }

    for frames in forged.values():
        with pytest.raises(JobError, match="changed after it was written"):
            read(header + b"".join(frames))


def test_a_file_in_anothers_place_is_noticed() -> None:
    file = written(b"secret")

    with pytest.raises(JobError, match="another file"):
        opened(file, context="other/job/file.csv.sealed")


def test_a_new_key_seals_and_the_former_one_still_opens() -> None:
    before, rotated = written(b"old"), MasterKeys(["n" * 32, "k" * 32])

    after = written(b"new", rotated)

    assert (opened(before, rotated).key_id, opened(after, rotated).key_id) == (
        opened(before).key_id,
        rotated.current.id.hex(),
    )
    with pytest.raises(JobError) as caught:
        opened(after, KEYS)
    assert caught.value.code == "master_key.unknown"


def test_a_secret_opens_only_in_its_own_place() -> None:
    sealed = KEYS.seal(b"password", context="acme/sink/lake")

    assert KEYS.open(sealed, context="acme/sink/lake") == b"password"
    assert b"password" not in sealed
    with pytest.raises(JobError) as caught:
        KEYS.open(sealed, context="other/sink/lake")
    assert caught.value.code == "master_key.tampered"
    with pytest.raises(JobError, match="HAULIER_MASTER_KEY"):
        MasterKeys([]).seal(b"x", context="a")
