"""How a file is packed: ISA-L's gzip or Zstandard, both fast rather than small."""

from __future__ import annotations

from typing import Final, Literal, Protocol

from isal import isal_zlib

from app.dataplane.zip_of_one import ZipOfOne
from app.dataplane.zstandard import zstd

Compression = Literal["none", "gzip", "zstd", "zip"]

GZIP_LEVEL: Final = 1
ZSTD_LEVEL: Final = 1
_GZIP_WINDOW: Final = 31
SUFFIXES: Final = {"none": "", "gzip": ".gz", "zstd": ".zst", "zip": ".zip"}


class Compressor(Protocol):
    """Packs a stream, a block at a time."""

    def compress(self, data: bytes, /) -> bytes:
        """What has become ready of it."""
        ...

    def flush(self) -> bytes:
        """The rest; nothing is compressed after that."""
        ...


class _Plain:
    """Compresses nothing."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def compressor(compression: Compression, *, member: str = "export") -> Compressor:
    """A new one of this kind; ``member`` is what the file in a zip is called."""
    packed: Compressor
    if compression == "gzip":
        packed = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
    elif compression == "zip":
        packed = ZipOfOne(member)
    elif compression == "zstd":
        packed = zstd.ZstdCompressor(
            options={
                zstd.CompressionParameter.compression_level: ZSTD_LEVEL,
                zstd.CompressionParameter.checksum_flag: 1,
            }
        )
    else:
        packed = _Plain()
    return packed
