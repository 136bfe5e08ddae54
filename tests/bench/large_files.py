"""Contacts files of any size, made as fast as they can be sent: one block of rows again and again, with other keys."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from zlib import MAX_WBITS

from isal import isal_zlib

from app.domain.ports import ObjectRef
from app.storage.s3 import S3Store
from tests.bench.import_bench import COLUMNS, people

BLOCK_ROWS = 36_000
"""Rows of a block: ten megabytes."""
_MARK = b"5eed5eed"
"""Stands in each row's key, e-mail address and profile; another number takes its place in each block."""


def header() -> bytes:
    """The first line of a file."""
    return (",".join(COLUMNS) + "\n").encode()


def blocks(rows: int = BLOCK_ROWS, *, longer_by: int = 0) -> Iterator[bytes]:
    """Blocks of ``rows`` rows without end; no two rows have the same key, e-mail address or profile.

    Args:
        longer_by: Letters that are added to each profile.

    Keys differ in their last digits from block to block, so that each block's rows fall all over the key's index, as
    those of random keys do.
    """
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    mark = _MARK.decode()
    for row in people(rows):
        row[0] = row[0][:-8] + mark
        row[3] = f"{mark}.{row[3]}"
        row[12] += mark + "x" * longer_by
        writer.writerow(row)
    block = lines.getvalue().encode()
    number = 0
    while True:
        yield block.replace(_MARK, b"%08x" % number)
        number += 1


def bring(
    store: S3Store,
    ref: ObjectRef,
    *,
    megabytes: int,
    packed: bool = False,
    block_rows: int = BLOCK_ROWS,
    longer_by: int = 0,
) -> int:
    """Put a CSV file of at least so many megabytes (of 10**6 bytes, as it lies in S3) there; return its rows.

    Args:
        packed: Write it as gzip, level 1.
        block_rows: As in ``blocks``, like ``longer_by``.
    """
    packer = isal_zlib.compressobj(1, wbits=MAX_WBITS | 16) if packed else None
    upload = store.start_upload(ref, content_type="application/gzip" if packed else "text/csv")

    def send(data: bytes) -> None:
        if data := packer.compress(data) if packer else data:
            upload.write(data)

    send(header())
    written = 0
    for block in blocks(block_rows, longer_by=longer_by):
        send(block)
        written += block_rows
        if upload.size_bytes >= megabytes * 1_000_000:
            break
    if packer:
        upload.write(packer.flush())
    upload.complete(upload.finish_parts())
    return written
