from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import pytest

from app.domain.clock import SystemClock
from app.domain.errors import HaulierError, InvalidRequestError, JobError, PermanentError, TransientError
from app.domain.job_types import JobType
from app.domain.ports import ObjectRef, ObjectStore
from app.persistence.sessions import Sessions
from app.services.submissions import TenantSubmission
from app.services.tables import Tables
from app.services.uploads import Uploads
from config.settings import Settings
from tasks.types.import_rows import JOB_TYPE
from tasks.types.insert_csv_file import JOB_TYPE as INSERT
from tests.factories import registry
from tests.integration.conftest import Client
from tests.integration.imports import ImportingAny
from tests.integration.test_import_csv import THINGS, Killed, stop_after

CSV = "id,name\n" + "".join(f"{n},n{n}\n" for n in range(40))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "in.csv").write_text(CSV)
    (tmp_path / "secret.csv").write_text("id,name\n666,secret\n")
    return tmp_path / "root"


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore, folder: Path) -> ImportingAny:
    opened = settings.model_copy(update={"import_root": str(folder), "allow_private_hosts": ("127.0.0.0/8",)})
    importing = ImportingAny(opened, sessions, objects)
    Tables(sessions).declare("default", THINGS)
    return importing


def load(imports: ImportingAny, source: dict[str, Any], **config: Any) -> Any:
    return imports.run(imports.context(imports.submit_config({"source": source, "table": "things", **config})))


def count(imports: ImportingAny) -> int:
    return int(imports.rows("SELECT count(*) FROM t_default.things")[0][0])


def checked(imports: ImportingAny, source: dict[str, Any], tenant: str = "default") -> None:
    submission = TenantSubmission(
        tenant, settings=imports.settings, sessions=imports.sessions, tables=Tables(imports.sessions)
    )
    assert JOB_TYPE.check is not None
    JOB_TYPE.check(submission, registry().parse(JOB_TYPE, {"source": source}))


@pytest.mark.feature("S1-03")
def test_text_in_the_config_is_loaded(imports: ImportingAny) -> None:
    load(imports, {"text": CSV})

    assert count(imports) == 40


@pytest.mark.feature("S1-04")
@pytest.mark.parametrize("absolute", [False, True])
def test_a_file_of_the_import_folder_is_loaded(imports: ImportingAny, folder: Path, absolute: bool) -> None:
    load(imports, {"path": str(folder / "in.csv") if absolute else "in.csv"})

    assert count(imports) == 40


@pytest.mark.feature("S1-04")
@pytest.mark.parametrize("path", ["../secret.csv", "/etc/passwd", "a/../../secret.csv", "t/acme/in.csv", "./in.csv"])
def test_a_path_out_of_the_import_folder_is_refused_at_submit(imports: ImportingAny, path: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        checked(imports, {"path": path})

    assert raised.value.code == "source.path_forbidden"
    assert raised.value.problems[0].pointer == "/config/source/path"


@pytest.mark.feature("S1-04")
def test_no_link_leads_out_of_the_import_folder(imports: ImportingAny, folder: Path) -> None:
    (folder / "link.csv").symlink_to(folder.parent / "secret.csv")
    (folder / "up").symlink_to(folder.parent)

    codes = []
    for path in ("link.csv", "up/secret.csv", "missing.csv", "up"):
        with pytest.raises(JobError) as raised:
            load(imports, {"path": path})
        codes.append(raised.value.code)

    assert codes == ["source.path_forbidden", "source.path_forbidden", "source.not_found", "source.path_forbidden"]


def test_without_an_import_folder_no_path_is_taken(imports: ImportingAny) -> None:
    imports.settings = imports.settings.model_copy(update={"import_root": None})

    with pytest.raises(InvalidRequestError, match="no folder to import from"):
        checked(imports, {"path": "in.csv"})


def test_a_file_that_changes_between_two_runs_is_refused(imports: ImportingAny, folder: Path) -> None:
    job_id = imports.submit_config({"source": {"path": "in.csv"}, "table": "things", "batch_rows": 5})
    context = imports.context(job_id)
    stop_after(context, commits=3)
    with pytest.raises(Killed):
        imports.run(context)
    (folder / "in.csv").write_text(CSV + "41,n\n")

    with pytest.raises(JobError) as raised:
        imports.run(imports.context(job_id))

    assert raised.value.code == "source.changed"


@pytest.mark.feature("S2-10")
@pytest.mark.parametrize("by", ["id", "key"])
def test_an_upload_is_loaded_by_its_id_or_its_key(imports: ImportingAny, by: str) -> None:
    uploads = Uploads(imports.sessions, imports.objects, imports.settings, SystemClock())
    ticket = uploads.create("default", filename="a.csv", created_by="tests")
    imports.objects.put(ticket.upload.ref, CSV.encode(), content_type="text/csv")

    load(imports, {"upload": str(ticket.upload.id) if by == "id" else ticket.s3_key})

    assert count(imports) == 40
    with pytest.raises(InvalidRequestError) as raised:
        checked(imports, {"upload": str(ticket.upload.id)}, tenant="acme")
    assert raised.value.problems[0].pointer == "/config/source/upload"


@pytest.mark.parametrize("source", [{}, {"text": "a", "path": "b"}, {"text": None}, {"ftp": "x"}])
def test_a_source_is_exactly_one(imports: ImportingAny, source: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        checked(imports, source)

    assert raised.value.problems[0].pointer.startswith("/config/source")


@pytest.mark.parametrize("url", ["ftp://x.example/a.csv", "nonsense"])
def test_a_url_that_cannot_be_called_is_refused_at_submit(imports: ImportingAny, url: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        checked(imports, {"url": url})

    assert raised.value.problems[0].pointer == "/config/source/url"


class Giver(ThreadingHTTPServer):
    """Gives ``data``; the first answer breaks off after ``breaks_after`` bytes, and ``asked`` lists the ranges.

    Args:
        drips: Whether a byte is given every twentieth of a second.
    """

    def __init__(
        self, data: bytes, *, breaks_after: int | None = None, ranges: bool = True, drips: bool = False
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data = data
        self.breaks_after = breaks_after
        self.ranges = ranges
        self.drips = drips
        self.asked: list[str | None] = []


class _Handler(BaseHTTPRequestHandler):
    server: Giver

    def do_GET(self) -> None:
        given = self.headers.get("Range")
        self.server.asked.append(given)
        begin = int(given[6:-1]) if given and self.server.ranges else 0
        rest = self.server.data[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("ETag", '"one"')
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(self.server.data) - 1}/{len(self.server.data)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        broken, self.server.breaks_after = self.server.breaks_after, None
        self.close_connection = True
        if not self.server.drips:
            self.wfile.write(rest[:broken])
            return
        with suppress(ConnectionError):
            for byte in rest:
                self.wfile.write(bytes([byte]))
                sleep(0.05)

    def log_message(self, *_: Any) -> None:
        """Silence."""


@contextmanager
def giving(imports: ImportingAny, data: bytes, **faults: Any) -> Iterator[tuple[Giver, str]]:
    with Giver(data, **faults) as giver:
        thread = threading.Thread(target=giver.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        port = giver.server_address[1]
        imports.settings = imports.settings.model_copy(update={"outgoing_ports": frozenset({port})})
        try:
            yield giver, f"http://127.0.0.1:{port}/a.csv"
        finally:
            giver.shutdown()
            thread.join()


@pytest.mark.feature("S1-05")
def test_a_url_is_read_once_and_a_broken_connection_goes_on_by_a_range(imports: ImportingAny) -> None:
    body = CSV.encode()

    with giving(imports, body, breaks_after=100) as (giver, url):
        load(imports, {"url": url})

    assert count(imports) == 40
    assert giver.asked == [None, "bytes=100-"]


@pytest.mark.feature("S1-05")
def test_a_killed_import_from_a_url_goes_on_from_its_copy(imports: ImportingAny) -> None:
    with giving(imports, CSV.encode()) as (giver, url):
        job_id = imports.submit_config({"source": {"url": url}, "table": "things", "batch_rows": 5})
        context = imports.context(job_id)
        stop_after(context, commits=4)
        with pytest.raises(Killed):
            imports.run(context)
        giver.data = b"other"

        result = imports.run(imports.context(job_id))

    assert result.data["books"]["read"] == count(imports) == 40
    assert giver.asked == [None]


def test_the_copy_of_a_dry_run_from_a_url_goes_with_the_report(imports: ImportingAny) -> None:
    with giving(imports, CSV.encode()) as (_, url):
        job_id = imports.submit_config({"source": {"url": url}, "table": "things", "validate_only": True})
        result = imports.run(imports.context(job_id))

    kept = [key for key, _ in imports.objects.list(imports.settings.s3_bucket, "") if str(job_id) in key]
    assert (result.data["passed"], result.data["records"]["read"]) == (True, 40)
    assert kept == []


@pytest.mark.parametrize(
    ("config", "faults", "code"),
    [
        ({"max_file_size": 50}, {}, "source.too_large"),
        ({}, {"breaks_after": 100, "ranges": False}, "source.changed"),
    ],
)
def test_a_url_that_gives_too_much_or_cannot_go_on_fails(
    imports: ImportingAny, config: dict[str, Any], faults: dict[str, Any], code: str
) -> None:
    with giving(imports, CSV.encode(), **faults) as (_, url), pytest.raises(JobError) as raised:
        load(imports, {"url": url}, **config)

    assert raised.value.code == code


def test_a_url_that_drips_is_given_up_after_its_connections(imports: ImportingAny) -> None:
    begun = monotonic()

    with giving(imports, CSV.encode(), drips=True) as (giver, url):
        imports.settings = imports.settings.model_copy(update={"url_timeout_s": 0.2})
        with pytest.raises(TransientError) as raised:
            load(imports, {"url": url})

    begins = [int(asked[6:-1]) for asked in giver.asked[1:] if asked]
    assert raised.value.code == "http.timeout"
    assert len(giver.asked) > 1
    assert begins == sorted(set(begins))
    assert monotonic() - begun < 10
    assert count(imports) == 0


@pytest.mark.feature("S1-05")
def test_a_private_address_is_not_called(imports: ImportingAny) -> None:
    imports.settings = imports.settings.model_copy(update={"allow_private_hosts": ()})

    with pytest.raises(HaulierError) as raised:
        load(imports, {"url": "http://169.254.169.254/latest"})

    assert raised.value.code == "ERR_URL_FORBIDDEN"


@pytest.mark.feature("S2-01")
@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"source": {"upload": str(uuid4())}, "table": "contacts"}, "/config/source/upload"),
        ({"source": {"text": "a"}, "table": "nowhere"}, "/config/table"),
        ({"source": {"text": "a"}, "workbook": "nowhere"}, "/config/workbook"),
    ],
)
def test_a_job_on_a_file_table_or_workbook_that_is_not_there_is_refused_at_once(
    member: Client, config: dict[str, Any], pointer: str
) -> None:
    answer = member.post("/v1/jobs", {"type": "import", "config": config})

    assert (answer.status_code, [one["pointer"] for one in answer.get_json()["errors"]]) == (422, [pointer])


def test_another_tenants_place_is_not_read(imports: ImportingAny) -> None:
    imports.objects.put(ObjectRef(imports.settings.s3_bucket, "t/acme/in.csv"), CSV.encode(), content_type="text/csv")

    for source in ({"s3": {"key": "t/acme/in.csv"}}, {"upload": "t/acme/in.csv"}, {"upload": str(uuid4())}):
        with pytest.raises(HaulierError):
            checked(imports, source)


@pytest.mark.feature("S4-85")
@pytest.mark.parametrize("job_type", [JOB_TYPE, INSERT], ids=["import", "insert_csv_file"])
def test_what_came_by_an_upload_and_is_not_what_was_announced_is_refused_and_removed(
    imports: ImportingAny, job_type: JobType
) -> None:
    imports.job_type = job_type
    uploads = Uploads(imports.sessions, imports.objects, imports.settings, SystemClock())
    upload = uploads.create("default", filename="in.csv", created_by="tests", size_bytes=10).upload
    imports.objects.put(upload.ref, CSV.encode(), content_type="text/csv")  # as by a server that checks no length
    config = {"s3_key": upload.ref.key} if job_type is INSERT else {"source": {"upload": str(upload.id)}}

    with pytest.raises(PermanentError, match=f"expected 10 bytes, got {len(CSV)}") as refused:
        imports.run(imports.context(imports.submit_config({"table": "things", **config})))

    assert refused.value.code == "upload.mismatch"
    assert (uploads.get("default", upload.id)[1], count(imports)) == (None, 0)


@pytest.mark.feature("S4-85")
def test_a_look_at_an_upload_tells_how_it_is_not_what_was_announced(
    admin: Client, objects: ObjectStore, settings: Settings
) -> None:
    announced = {"filename": "in.csv", "size_bytes": len(CSV), "content_type": "application/json"}
    ticket = admin.post("/v1/uploads", announced).get_json()
    objects.put(ObjectRef(settings.s3_bucket, ticket["s3_key"]), CSV.encode(), content_type="text/csv; charset=utf-8")

    seen = admin.get(f"/v1/uploads/{ticket['id']}").get_json()
    used = admin.post("/v1/tables:infer", {"name": "orders", "source": {"upload": ticket["id"]}})

    said = "expected content type 'application/json', got 'text/csv; charset=utf-8'"
    assert ticket["headers"] == {"Content-Type": "application/json", "Content-Length": str(len(CSV))}
    assert (seen["arrived"], seen["refused"]) == (False, said)
    assert (used.status_code, used.get_json()["code"]) == (422, "upload.mismatch")
    assert admin.get(f"/v1/uploads/{ticket['id']}").get_json()["refused"] is None
