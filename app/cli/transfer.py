"""Bytes to and from S3 by presigned URLs: uploads in one PUT or in parts, downloads that go on after a break."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

import requests
from urllib3.exceptions import HTTPError

from app.cli.client import Client
from app.cli.failures import Exit, failed
from app.cli.output import size
from app.cli.watching import Shown, showing

_TIMEOUT_S: Final = (5.0, 60.0)
_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Before each further try of a part or a download; one that gets further starts anew."""
_BLOCK_BYTES: Final = 256 * 1024


class _Window:
    """A part of a file as the body of a PUT; tells how much of it was read."""

    def __init__(self, file: IO[bytes], offset: int, length: int, told: Callable[[int], None]) -> None:
        self._file = file
        self._left = length
        self._length = length
        self._told = told
        file.seek(offset)

    def __len__(self) -> int:
        return self._length

    def read(self, most: int = -1) -> bytes:
        """At most ``most`` bytes of what is left."""
        block = self._file.read(self._left if most < 0 else min(most, self._left, _BLOCK_BYTES))
        self._left -= len(block)
        self._told(len(block))
        return block


def upload(client: Client, path: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Send a file to S3; the upload as the API tells it, with ``s3_key`` for a job's config.

    Raises:
        CommandFailed: S3 refused it, or broke off again and again; nothing is left under the key.
    """
    total = path.stat().st_size
    ticket: dict[str, Any] = client.post("/v1/uploads", {"filename": path.name, "size_bytes": total})
    with showing("upload", quiet=quiet) as show, path.open("rb") as file:
        told = _Told(show, total)
        if ticket["url"] is not None:
            _put(file, ticket["url"], 0, total, told)
        else:
            parts = [_put_part(file, part, ticket["part_bytes"], total, told) for part in ticket["parts"]]
            client.post(f"/v1/uploads/{ticket['id']}:complete", {"parts": parts})
        told.end()
    return ticket


def _put_part(file: IO[bytes], part: dict[str, Any], part_bytes: int, total: int, told: _Told) -> dict[str, Any]:
    offset = (part["number"] - 1) * part_bytes
    return {
        "number": part["number"],
        "etag": _put(file, part["url"], offset, min(part_bytes, total - offset), told).strip('"'),
    }


class _Told:
    """How much of a file has moved, shown."""

    def __init__(self, show: Shown, total: int) -> None:
        self._show = show
        self._total = total
        self._started_at = time.monotonic()
        self.moved = 0

    def __call__(self, more: int) -> None:
        """``more`` bytes moved (or, below 0, have to move again)."""
        self.moved += more
        rate = self.moved / max(time.monotonic() - self._started_at, 1e-6)
        # 100 is for the end: the last bytes are sent, but not yet taken.
        percent = min(99.9, 100.0 * self.moved / self._total) if self._total else 0.0
        self._show(percent, f"{size(self.moved)} of {size(self._total)}, {size(rate)}/s")

    def end(self) -> None:
        """Everything is there."""
        elapsed_s = time.monotonic() - self._started_at
        self._show(100.0, f"{size(self._total)} in {elapsed_s:.1f} s")


def _put(file: IO[bytes], url: str, offset: int, length: int, told: _Told) -> str:
    """PUT a part of a file, again after a break; the ETag that S3 gave it."""
    for pause_s in (*_PAUSES_S, None):
        before = told.moved
        try:
            # An empty body as a stream would be sent in chunks, which S3 does not take.
            body = _Window(file, offset, length, told) if length else b""
            answer = requests.put(url, data=body, timeout=_TIMEOUT_S)
        except requests.RequestException as error:
            problem = f"the connection broke: {type(error).__name__}"
        else:
            if answer.status_code < 300:
                return answer.headers.get("ETag", "")
            problem = f"S3 answered {answer.status_code}: {answer.text[:200]}"
            if answer.status_code < 500 and answer.status_code != 429:
                break
        told(before - told.moved)
        if pause_s is not None:
            time.sleep(pause_s)
    raise failed(
        f"the file could not be sent: {problem}",
        Exit.SERVER,
        code="upload.refused",
        hint="Is S3 reachable from here (HAULIER_S3_PUBLIC_ENDPOINT of the server)? Then run the command again.",
    )


def download(fresh_url: Callable[[], str], target: Path, *, size_bytes: int, sha256: str, quiet: bool = False) -> None:
    """Fetch a file by presigned URLs to ``target``; a break goes on where it was, and the whole is checked.

    The file appears under its name when it is whole and its SHA-256 is the one told; until then it is ``NAME.part``,
    and what such a file of an earlier try holds is not fetched again.

    Args:
        fresh_url: Makes a new URL, for each try.
        size_bytes: Of the whole.
        sha256: Hex, of the whole.
    Raises:
        CommandFailed: S3 refused it, broke off again and again, or sent other bytes.
    """
    partial = target.with_name(target.name + ".part")
    digest = hashlib.sha256()
    with showing("download", quiet=quiet) as show, partial.open("a+b") as sink:
        told = _Told(show, size_bytes)
        told(_kept(sink, digest.update, size_bytes))
        _fetch(fresh_url, sink, digest.update, told, size_bytes)
        sink.flush()
        os.fsync(sink.fileno())
        told.end()
    if (told.moved, digest.hexdigest()) != (size_bytes, sha256):
        partial.unlink()
        raise failed(
            f"the file is not the one the job wrote: expected {size_bytes} bytes with sha256 {sha256}, "
            f"got {told.moved} bytes with {digest.hexdigest()}",
            code="download.differs",
            hint="Something between S3 and here changed it; run the command again.",
        )
    partial.replace(target)


def _kept(sink: IO[bytes], digest: Callable[[bytes], None], size_bytes: int) -> int:
    """How much of the file is there; more than it is to have is none of it."""
    sink.seek(0)
    if os.fstat(sink.fileno()).st_size > size_bytes:
        sink.truncate(0)
    while block := sink.read(_BLOCK_BYTES):
        digest(block)
    return sink.tell()


def _fetch(
    fresh_url: Callable[[], str], sink: IO[bytes], digest: Callable[[bytes], None], told: _Told, size_bytes: int
) -> None:
    tries = 0
    while told.moved < size_bytes:
        before = told.moved
        problem = _fetch_once(fresh_url(), sink, digest, told)
        tries = 0 if told.moved > before else tries + 1
        if told.moved >= size_bytes:
            return
        if tries > len(_PAUSES_S):
            raise failed(f"the file could not be fetched: {problem}", Exit.SERVER, code="download.broken")
        time.sleep(_PAUSES_S[max(0, tries - 1)])


def _fetch_once(url: str, sink: IO[bytes], digest: Callable[[bytes], None], told: _Told) -> str:
    """Append what one answer brings; why it ended."""
    # The bytes as they are stored: a transport that unpacks a gzip file would change its length and its sum.
    headers = {"Accept-Encoding": "identity"}
    if told.moved:
        headers["Range"] = f"bytes={told.moved}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
            if answer.status_code != (206 if told.moved else 200):
                return f"S3 answered {answer.status_code}: {answer.raw.read(200).decode(errors='replace')}"
            while block := answer.raw.read(_BLOCK_BYTES):
                sink.write(block)
                digest(block)
                told(len(block))
    except (requests.RequestException, HTTPError) as error:
        return f"the connection broke: {type(error).__name__}"
    return "the connection ended early"
