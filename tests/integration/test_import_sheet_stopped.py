"""Sheets whose import is stopped while they are read: killed, paused, cancelled, or broken near their end."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest

from app.dataplane import sheets
from app.domain.errors import JobError
from app.domain.ports import ObjectStore
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from app.services.tables import Tables
from config.settings import Settings
from tests.integration.conftest import Client
from tests.integration.imports import ImportingAny
from tests.integration.test_import_amended import paused
from tests.integration.test_import_csv import Killed, books, stop_after
from tests.integration.test_ledger import THINGS, download, replayed
from tests.workbooks import number, row, text, workbook

ROWS = 20_000
"""Several blocks of the sheet."""
HEADER = row(1, [text("id"), text("name"), text("amount")])


def _row(at: int) -> str:
    amount = text("-") if at % 4_000 == 7 else number(str(at))
    return row(at, [number(str(at)), text(f"n{at} &amp; {'x' * (at % 60)}"), amount])


SHEET = HEADER + "".join(map(_row, range(2, ROWS + 1)))
BOOK = workbook(SHEET)
ODD_IN_THE_MIDST = workbook(SHEET.replace('<row r="15000">', '<!-- odd --><row r="15000">'))
"""calamine goes on there."""


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> ImportingAny:
    Tables(sessions).declare("default", THINGS)
    return ImportingAny(settings, sessions, objects)


@pytest.fixture(autouse=True)
def leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whatever becomes of the import: no file stays, and no process."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert list(tmp_path.iterdir()) == []
    assert _programs() == []


def _programs() -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_text()
        except OSError:  # it has just ended
            continue
        if parent == os.getpid() and "sheet_reader" in command:
            found.append(command)
    return found


def left(imports: ImportingAny, job_id: UUID) -> list[Any]:
    """The table, the ledger and the books of a job."""
    statements = (
        "SELECT count(*), md5(string_agg(concat_ws('|', id, name, amount), ';' ORDER BY id)) FROM t_default.things",
        "SELECT line, first_byte, end_byte, raw, code FROM failed_records WHERE job_id = :id ORDER BY line",
        "SELECT lane, batch, end_byte FROM import_batches WHERE job_id = :id ORDER BY lane, batch",
    )
    return [imports.rows(statement, **({"id": job_id} if ":id" in statement else {})) for statement in statements]


@pytest.mark.parametrize("book", [BOOK, ODD_IN_THE_MIDST], ids=["by blocks", "by calamine from the midst on"])
def test_a_sheet_that_is_killed_while_it_is_read_leaves_what_an_undisturbed_one_leaves(
    imports: ImportingAny, book: bytes
) -> None:
    calm = imports.submit(book, batch_rows=500)
    whole = imports.run(imports.context(calm))
    expected = left(imports, calm)
    imports.rows("TRUNCATE t_default.things, import_batches; SELECT 1")
    job_id = imports.submit(book, batch_rows=500)
    for commits in (9, 23):
        context = imports.context(job_id)
        stop_after(context, commits=commits)
        with pytest.raises(Killed):
            imports.run(context)

    result = imports.run(imports.context(job_id))

    assert left(imports, job_id) == expected
    assert result.data == whole.data
    assert books(result) == {"read": ROWS - 1, "loaded": ROWS - 6, "failed": 5}


def broken_near_its_end(book: bytes) -> bytes:
    """The workbook whose sheet is damaged in its last bytes."""
    with zipfile.ZipFile(io.BytesIO(book)) as archive:
        member = archive.getinfo("xl/worksheets/sheet1.xml")
    at = book.index(member.filename.encode()) + len(member.filename) + member.compress_size - 200
    return book[:at] + bytes(byte ^ 0x55 for byte in book[at : at + 20]) + book[at + 20 :]


def test_of_a_workbook_that_is_broken_near_its_end_the_rows_before_are_loaded(imports: ImportingAny) -> None:
    job_id = imports.submit(broken_near_its_end(BOOK), batch_rows=500)
    context = imports.context(job_id)

    with pytest.raises(JobError) as raised:
        imports.run(context)
    Runs(imports.sessions).fail(context.job, raised.value)

    assert raised.value.code == "source.corrupt"
    [(rows,)] = imports.rows("SELECT count(*) FROM t_default.things")
    assert 0 < rows < ROWS - 1


def test_a_paused_sheet_goes_on_under_a_mended_config_and_its_ledger_is_replayed(
    imports: ImportingAny, member: Client
) -> None:
    job_id = imports.submit(BOOK, batch_rows=500, max_errors=2)
    paused(imports, imports.context(job_id, ledger_raw_rows=0))
    while_paused = download(member, job_id)

    member.post(f"/v1/jobs/{job_id}:resume", {"config": {"null_tokens": ["-"], "max_errors": None}})
    result = imports.run(imports.context(job_id, ledger_raw_rows=0))
    at_the_end = download(member, job_id)
    _, replay = replayed(imports, job_id)

    assert [row["line"] for row in while_paused] == ["7", "4007", "8007"]
    assert [(row["raw_missing"], row["name"][:5], row["amount"]) for row in while_paused[:2]] == [
        ("", "n7 & ", "-"),
        ("", "n4007", "-"),
    ]
    assert result.data["books"]["failed"] == len(at_the_end) == replay.data["resolved"] >= 3
    assert imports.rows("SELECT count(*), count(amount) FROM t_default.things") == [(ROWS - 1, ROWS - 6)]


def test_a_cancel_in_the_midst_of_a_sheet_is_heeded(imports: ImportingAny, member: Client) -> None:
    job_id = imports.submit(BOOK, batch_rows=500)
    context = imports.context(job_id, ledger_raw_rows=0)
    stop_after(context, commits=20)
    with pytest.raises(Killed):
        imports.run(context)
    imports.rows("UPDATE jobs SET state = 'cancelled' WHERE id = :id RETURNING 1", id=job_id)

    found = download(member, job_id)

    assert [(row["line"], row["raw_missing"], row["amount"]) for row in found[:1]] == [("7", "", "-")]


def test_lines_of_another_reader_are_neither_gone_on_with_nor_taken_for_texts(
    imports: ImportingAny, member: Client
) -> None:
    job_id = imports.submit(BOOK, batch_rows=500)
    context = imports.context(job_id, ledger_raw_rows=0)
    stop_after(context, commits=20)
    with pytest.raises(Killed):
        imports.run(context)

    with patch.object(sheets, "READER", "2, another"):
        with pytest.raises(JobError) as raised:
            imports.run(imports.context(job_id))
        texts = download(member, job_id)

    assert raised.value.code == "xlsx.reader_changed"
    assert {row["raw_missing"] for row in texts} == {"xlsx.reader_changed"}
