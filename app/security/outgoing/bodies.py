"""Bodies of answers: decoded by the piece and counted, so that no byte is held that is not wanted."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from app.domain.errors import JobError, TransientError

_ANY_HEADER: Final = 32 + zlib.MAX_WBITS
_PIECE_BYTES: Final = 65_536
_CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})


class ResponseTooLargeError(JobError):
    """The answer has more bytes than the caller takes; those before the limit were given."""

    code = "http.response_too_large"


def decoded(received: Iterable[bytes], coding: str) -> Iterator[bytes]:
    """The content of a body, in pieces of at most 64 KiB.

    Args:
        coding: The answer's ``Content-Encoding``.
    Raises:
        JobError: The coding is none we asked for, or the body does not keep to it.
        TransientError: A compressed body ends early.
    """
    coding = coding.strip().lower()
    if coding in {"", "identity"}:
        return iter(received)
    if coding not in _CODINGS:
        raise JobError(f"the answer came as {coding[:50]!r}, expected gzip or plain", code="http.encoding_unsupported")
    return _inflated(received)


def _inflated(received: Iterable[bytes]) -> Iterator[bytes]:
    decoder, begun = zlib.decompressobj(_ANY_HEADER), False
    for data in received:
        rest, piece, begun = data, b"", True
        while rest or len(piece) == _PIECE_BYTES:  # a full piece may have left more inside the decoder
            if decoder.eof:
                if not rest:
                    break
                decoder = zlib.decompressobj(_ANY_HEADER)  # a gzip file may be several, one after the other
            try:
                piece = decoder.decompress(rest, _PIECE_BYTES)
            except zlib.error:
                raise JobError("the answer is not the gzip it says it is", code="http.encoding_invalid") from None
            rest = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            if piece:
                yield piece
    if begun and not decoder.eof:
        raise TransientError("the answer's compressed body ended early", code="http.connection_failed")


def capped(pieces: Iterable[bytes], most_bytes: int) -> Iterator[bytes]:
    """``pieces``, up to ``most_bytes`` in all.

    Raises:
        ResponseTooLargeError: There are more; the first ``most_bytes`` were given.
    """
    room = most_bytes
    for piece in pieces:
        if piece[:room]:
            yield piece[:room]
        room -= len(piece)
        if room < 0:
            raise ResponseTooLargeError(f"the answer is longer than the {most_bytes} bytes that are taken")
