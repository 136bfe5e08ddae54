"""Downloads from a server that breaks off: they go on where they were, and a wrong file never appears."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.cli import transfer
from app.cli.failures import CommandFailed
from app.cli.transfer import download

BODY = random.Random(1).randbytes(700_000)


@dataclass
class _Store:
    """An object store that breaks off after ``cut_bytes``, ``cuts`` times."""

    cut_bytes: int = 0
    cuts: int = 0
    refuse: int = 0
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Store]:
    made = _Store()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            made.ranges.append(asked)
            if made.refuse:
                made.refuse -= 1
                self.send_error(503)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            body = BODY[start:]
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if made.cuts:
                made.cuts -= 1
                body = body[: made.cut_bytes]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    monkeypatch.setattr(transfer, "_PAUSES_S", (0.0, 0.0, 0.0))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}/file"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def _download(store: _Store, target: Path, sha256: str = hashlib.sha256(BODY).hexdigest()) -> None:
    download(lambda: store.url, target, size_bytes=len(BODY), sha256=sha256, quiet=True)


@pytest.mark.feature("S0-22")
def test_a_download_that_breaks_off_goes_on_where_it_was(store: _Store, tmp_path: Path) -> None:
    store.cut_bytes, store.cuts = 300_000, 2

    _download(store, tmp_path / "a.csv")

    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert len(store.ranges) == 3
    assert store.ranges[0] is None
    assert all(asked is not None and asked != "bytes=0-" for asked in store.ranges[1:])
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.feature("S0-22")
def test_a_download_that_was_broken_off_goes_on_when_it_is_asked_for_again(store: _Store, tmp_path: Path) -> None:
    (tmp_path / "a.csv.part").write_bytes(BODY[:250_000])

    _download(store, tmp_path / "a.csv")

    assert store.ranges == ["bytes=250000-"]
    assert (tmp_path / "a.csv").read_bytes() == BODY


def test_a_part_of_another_file_is_found_out_and_the_next_download_begins_anew(store: _Store, tmp_path: Path) -> None:
    (tmp_path / "a.csv.part").write_bytes(b"x" * 1_000)
    with pytest.raises(CommandFailed, match="not the one the job wrote"):
        _download(store, tmp_path / "a.csv")

    _download(store, tmp_path / "a.csv")

    assert (tmp_path / "a.csv").read_bytes() == BODY


def test_a_store_that_is_busy_for_a_moment_is_asked_again(store: _Store, tmp_path: Path) -> None:
    store.refuse = 2

    _download(store, tmp_path / "a.csv")

    assert (tmp_path / "a.csv").read_bytes() == BODY


def test_a_store_that_stays_away_ends_the_download_without_a_file(store: _Store, tmp_path: Path) -> None:
    store.refuse = 1_000

    with pytest.raises(CommandFailed, match="503") as ended:
        _download(store, tmp_path / "a.csv")

    assert ended.value.exit_code == 7
    assert not (tmp_path / "a.csv").exists()


def test_a_file_with_another_sum_never_appears_under_its_name(store: _Store, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("what was there")

    with pytest.raises(CommandFailed, match="not the one the job wrote"):
        _download(store, tmp_path / "a.csv", sha256="0" * 64)

    assert (tmp_path / "a.csv").read_text() == "what was there"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
