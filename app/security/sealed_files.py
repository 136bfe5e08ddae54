"""Encrypted files: AES-256-GCM in frames, under a key of the file's own that a master key seals.

A file is a header and frames of 64 KiB, each with its tag. A frame's nonce is its number and whether it is the last, so
no frame can be taken out, moved, doubled or cut off unnoticed, and any of them can be read without those before it.

The header: the magic, the master key's id, the sealed key of the file, and the context, which says whose file it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.domain.errors import JobError
from app.security.master_keys import ID_BYTES, KEY_BYTES, NONCE_BYTES, TAG_BYTES, MasterKeys

MAGIC: Final = b"HAULIER\x01"
FRAME_BYTES: Final = 64 * 1024
SEALED_FRAME_BYTES: Final = FRAME_BYTES + TAG_BYTES
MAX_CONTEXT_BYTES: Final = 512
_SEALED_KEY_BYTES: Final = NONCE_BYTES + KEY_BYTES + TAG_BYTES
_FIXED_BYTES: Final = len(MAGIC) + ID_BYTES + 2


class Source(Protocol):
    """What is read from its beginning or from where it stands."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        ...


class Sealer:
    """Encrypts one file, a block at a time; its first bytes are ``header``.

    Args:
        context: Whose file it is and which; whoever opens it names the same.
    """

    def __init__(self, keys: MasterKeys, *, context: str) -> None:
        master = keys.current
        key = AESGCM.generate_key(KEY_BYTES * 8)
        said = context.encode()
        if len(said) > MAX_CONTEXT_BYTES:
            raise ValueError(f"a context has at most {MAX_CONTEXT_BYTES} bytes, got {len(said)}")
        before = MAGIC + master.id + len(said).to_bytes(2, "big") + said
        self.key_id = master.id.hex()
        self.header: Final = before + master.seal(key, before)
        self._cipher = AESGCM(key)
        self._number = 0
        self._rest = b""

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        """The frames that have become full; the last one is held back, as it may be the last of all."""
        held = memoryview(self._rest + bytes(data))
        full = max(0, -(-len(held) // FRAME_BYTES) - 1)
        frames = [self._frame(held[at * FRAME_BYTES : (at + 1) * FRAME_BYTES], last=False) for at in range(full)]
        self._rest = bytes(held[full * FRAME_BYTES :])
        return b"".join(frames)

    def finish(self) -> bytes:
        """The last frame."""
        return self._frame(memoryview(self._rest), last=True)

    def _frame(self, data: memoryview, *, last: bool) -> bytes:
        sealed = self._cipher.encrypt(_nonce(self._number, last=last), data, None)
        self._number += 1
        return sealed


@dataclass(frozen=True, slots=True)
class SealedFile:
    """An encrypted file whose header was read.

    Args:
        header_bytes: Where its first frame begins.
        sealed_bytes: Of the whole, header and all.
    """

    context: str
    key_id: str
    header_bytes: int
    sealed_bytes: int
    cipher: AESGCM

    @property
    def frames(self) -> int:
        """How many there are, one at least."""
        return max(1, -(-(self.sealed_bytes - self.header_bytes) // SEALED_FRAME_BYTES))

    @property
    def size_bytes(self) -> int:
        """Of what was encrypted."""
        return self.sealed_bytes - self.header_bytes - self.frames * TAG_BYTES

    def read(self, open_at: Callable[[int], Source], start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Bytes ``start`` to ``end`` of what was encrypted, a frame at a time.

        Args:
            open_at: The stored bytes from an offset on.
        Raises:
            JobError: ``file.tampered``, before a byte of the frame in question is given.
        """
        end = self.size_bytes if end is None else end
        first = start // FRAME_BYTES
        if start >= end > 0:
            return
        source = open_at(self.header_bytes + first * SEALED_FRAME_BYTES)
        for number in range(first, max(1, -(-end // FRAME_BYTES))):
            before = number * FRAME_BYTES
            plain = self._frame(number, _exactly(source, SEALED_FRAME_BYTES))
            yield plain[max(0, start - before) : end - before]

    def _frame(self, number: int, sealed: bytes) -> bytes:
        try:
            return self.cipher.decrypt(_nonce(number, last=number == self.frames - 1), sealed, None)
        except InvalidTag:
            raise _tampered(f"its frame {number + 1} of {self.frames} is not the one that was written") from None


def open_sealed(keys: MasterKeys, source: Source, *, sealed_bytes: int, context: str | None = None) -> SealedFile:
    """Read a file's header.

    Args:
        source: From its first byte; it stands at the first frame afterwards.
        sealed_bytes: Of the whole file.
        context: Whose file it must be; ``None`` takes anybody's.
    Raises:
        JobError: ``file.not_sealed``; ``file.tampered``; ``master_key.unknown``.
    """
    fixed = _exactly(source, _FIXED_BYTES)
    if not fixed.startswith(MAGIC) or len(fixed) < _FIXED_BYTES:
        raise JobError("the file is not one that Haulier has encrypted", code="file.not_sealed")
    said = _exactly(source, int.from_bytes(fixed[-2:], "big"))
    sealed_key = _exactly(source, _SEALED_KEY_BYTES)
    key_id = fixed[len(MAGIC) : -2]
    try:
        key = keys.find(key_id).open(sealed_key, fixed + said)
    except InvalidTag:
        raise _tampered("its header is not the one that was written") from None
    if context is not None and said != context.encode():
        raise _tampered("it is another file, put in this one's place")
    header_bytes = _FIXED_BYTES + len(said) + len(sealed_key)
    return SealedFile(said.decode(), key_id.hex(), header_bytes, sealed_bytes, AESGCM(key))


def _nonce(number: int, *, last: bool) -> bytes:
    # No nonce comes twice under a key, which is one file's alone.
    return number.to_bytes(NONCE_BYTES - 1, "big") + bytes([last])


def _exactly(source: Source, size: int) -> bytes:
    """``size`` bytes, fewer only at the end: a stream may give less at a time than was asked for."""
    pieces = []
    while size and (piece := source.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _tampered(detail: str) -> JobError:
    return JobError(f"the encrypted file was changed after it was written: {detail}", code="file.tampered")
