"""Workbooks through a whole import, files that are scanned before, and copies that go after their jobs."""

from __future__ import annotations

import io
import socketserver
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.domain.errors import HaulierError, InvalidRequestError, JobError, PermanentError, TransientError
from app.domain.ports import ObjectStore
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from app.services.submissions import TenantSubmission
from app.services.tables import Tables
from config.settings import Settings
from tasks.types.import_rows import JOB_TYPE
from tests.factories import registry
from tests.integration.imports import ImportingAny
from tests.integration.test_import_csv import THINGS, books
from tests.integration.test_ledger import replayed
from tests.workbooks import TIME, number, row, text, workbook

HEADER = row(1, [text("id"), text("name"), text("amount"), text("at")])
BOOK = workbook(
    HEADER
    + row(2, [number("1"), text("one"), number("1.25"), number("45292.5", style=TIME)])
    + row(4, [text("x"), text("bad")])
    + "".join(row(n, [number(str(n)), text(f"n{n}")]) for n in range(5, 40))
)
EICAR = "Eicar-Test-Signature"


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> ImportingAny:
    Tables(sessions).declare("default", THINGS)
    return ImportingAny(settings, sessions, objects)


@pytest.mark.feature("S2-17")
def test_a_workbook_is_loaded_and_its_ledger_has_the_rows_of_the_sheet(imports: ImportingAny) -> None:
    context = imports.context(imports.submit(BOOK, allowed_formats=["xlsx"]))
    result = imports.run(context)
    Runs(imports.sessions).complete(context.job, result)
    imports.rows("UPDATE failed_records SET corrected = replace(raw, '\"x\"', '4') RETURNING 1")
    _, replay = replayed(imports, context.id)

    assert books(result) == {"read": 38, "loaded": 36, "skipped": 1, "failed": 1}
    assert (result.data["format"], result.data["sheet"]) == ("xlsx", "Sheet1")
    assert imports.ledger(context.id) == [(4, "value.bigint", "id", '{"id":"x","name":"bad"}')]
    assert replay.data["resolved"] == 1
    assert imports.rows("SELECT name, amount::text, at::text FROM t_default.things WHERE id IN (1, 4) ORDER BY id") == [
        ("one", "1.25", "2024-01-01 12:00:00+00"),
        ("bad", None, None),
    ]


@pytest.mark.parametrize(
    ("book", "config", "code"),
    [
        (BOOK, {"sheet": "nothing"}, "xlsx.no_sheet"),
        (BOOK, {"format": "csv"}, "source.format_mismatch"),
        (BOOK, {"allowed_formats": ["csv"]}, "source.format_forbidden"),
        (BOOK, {"max_file_size": 100}, "source.too_large"),
        (workbook(row(1, [text("id"), text("id")])), {}, "csv.header_duplicate"),
        (workbook(HEADER, extra={"xl/worksheets/sheet9.xml": b"0" * 10**7}), {}, "source.bomb"),
        (workbook(HEADER + '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'), {}, "xlsx.too_large"),
    ],
)
def test_a_workbook_that_is_not_what_it_should_be_fails_with_its_reason(
    imports: ImportingAny, book: bytes, config: dict[str, Any], code: str
) -> None:
    job_id = imports.submit(book, **config)

    with pytest.raises(JobError) as raised:
        imports.run(imports.context(job_id))

    assert raised.value.code == code
    assert imports.rows("SELECT count(*) FROM import_batches") == [(0,)]


def test_the_directory_of_a_zip_file_is_not_read_when_it_is_too_long(imports: ImportingAny) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number_ in range(20):
            archive.writestr(f"{number_}" + "x" * 60_000, b"")

    with pytest.raises(JobError) as raised:
        imports.load(packed.getvalue())

    assert raised.value.code == "source.zip_directory"


# Viruses


class _Clamd(socketserver.ThreadingTCPServer):
    """Answers like clamd; ``says`` overrules what it finds."""

    allow_reuse_address = True
    says: bytes | None = None


class _Handler(socketserver.StreamRequestHandler):
    server: _Clamd

    def handle(self) -> None:
        assert self.rfile.read(10) == b"zINSTREAM\0"
        data = b""
        while size := int.from_bytes(self.rfile.read(4), "big"):
            data += self.rfile.read(size)
        found = f"stream: {EICAR} FOUND\0".encode() if b"EICAR-STANDARD" in data else b"stream: OK\0"
        self.wfile.write(found if self.server.says is None else self.server.says)


@contextmanager
def clamd(imports: ImportingAny) -> Iterator[_Clamd]:
    with _Clamd(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        where = f"tcp://127.0.0.1:{server.server_address[1]}"
        imports.settings = imports.settings.model_copy(update={"clamd": where})
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.feature("S2-18")
def test_an_infected_file_is_refused_and_a_clean_one_is_loaded(imports: ImportingAny) -> None:
    with clamd(imports):
        result = imports.load("id,name\n1,one\n", scan_for_viruses=True)
        infected = imports.submit("id,name\n2,EICAR-STANDARD-ANTIVIRUS-TEST-FILE\n", scan_for_viruses=True)
        context = imports.context(infected)
        with pytest.raises(PermanentError) as raised:
            imports.run(context)
        Runs(imports.sessions).fail(context.job, raised.value)

    assert books(result) == {"read": 1, "loaded": 1}
    assert (raised.value.code, raised.value.data) == ("source.infected", {"found": EICAR})
    assert imports.rows("SELECT id FROM t_default.things") == [(1,)]
    assert imports.rows(
        "SELECT data #>> '{error,code}' FROM job_events WHERE job_id = :id AND type = 'job.failed'", id=context.id
    ) == [("source.infected",)]


@pytest.mark.feature("S2-18")
@pytest.mark.parametrize(
    ("says", "error"),
    [
        (b"", TransientError),
        (b"stream: Can't allocate memory ERROR\0", TransientError),
        (b"INSTREAM size limit exceeded. ERROR\0", JobError),
        (None, TransientError),
    ],
)
def test_without_the_word_of_the_scanner_nothing_is_read(
    imports: ImportingAny, says: bytes | None, error: type[HaulierError]
) -> None:
    with clamd(imports) as server:
        server.says = says
        if says is None:
            imports.settings = imports.settings.model_copy(update={"clamd": "unix:///nowhere/clamd.sock"})

        with pytest.raises(error):
            imports.load("id,name\n1,one\n", scan_for_viruses=True)

    assert imports.rows("SELECT count(*) FROM t_default.things") == [(0,)]


def test_a_scan_is_refused_at_submit_where_there_is_no_scanner(imports: ImportingAny) -> None:
    submission = TenantSubmission(
        "default", settings=imports.settings, sessions=imports.sessions, tables=Tables(imports.sessions)
    )
    config = {"source": {"text": "id\n"}, "table": "things", "scan_for_viruses": True}
    assert JOB_TYPE.check is not None

    with pytest.raises(InvalidRequestError) as raised:
        JOB_TYPE.check(submission, registry().parse(JOB_TYPE, config))

    assert raised.value.problems[0].pointer == "/config/scan_for_viruses"
