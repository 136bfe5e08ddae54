"""An import whose worker is killed, twice in one job, leaves what an undisturbed one leaves."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any
from uuid import UUID
from xml.sax.saxutils import escape

import pytest
from sqlalchemy import text

from app.cli.demo_data import make
from app.domain.jobs import Job, SubmitJob
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectRef
from app.domain.tables import CONTACTS
from app.runtime.stores import Stores
from app.storage.s3 import S3Store
from tests.faults.cluster import BUCKET, Cluster, eventually
from tests.killing import SEEDS
from tests.workbooks import row, workbook
from tests.workbooks import text as cell

pytestmark = pytest.mark.fault

ROWS = 30_250
"""The last batch is not full."""


@pytest.fixture
def cluster(fault_stores: Stores, tmp_path: Path) -> Iterator[Cluster]:
    """One to which every file is large: an import into an empty table puts its indexes off."""
    cluster = Cluster(fault_stores, tmp_path, HAULIER_BULK_PATH_BYTES="1")
    yield cluster
    cluster.close()


KEY = "uploads/kill"
PLAIN: dict[str, Any] = {"s3_key": KEY}
SHEET: dict[str, Any] = {"source": {"s3": {"key": KEY}}, "ignore_unknown": True}
SHAPED: dict[str, Any] = {
    "source": {"s3": {"key": KEY}},
    "transforms": [{"operation": "uppercase", "field": "last_name"}],
    "rules": [
        {"rule": "unique", "columns": ["uuid"]},
        {"rule": "enum", "column": "email_status", "values": ["verified", "guessed"]},
    ],
}


def _in_lines(body: bytes) -> bytes:
    """The records of a CSV file as NDJSON, packed."""
    names, *records = _records(body)
    lines = (json.dumps(dict(zip(names, record, strict=False))) for record in records)
    return gzip.compress("\n".join(lines).encode(), compresslevel=1)


def _as_sheet(body: bytes) -> bytes:
    """The workbook with the records of a CSV file."""
    rows = ([one and cell(escape(one)) for one in record] for record in _records(body))
    return workbook("".join(row(at, cells) for at, cells in enumerate(rows, 1)))


def _records(body: bytes) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(body.decode(errors="replace"), newline=""))


KINDS: dict[str, tuple[dict[str, Any], Callable[[bytes], bytes]]] = {
    "csv": (PLAIN, bytes),
    "packed lines with rules": (SHAPED, _in_lines),
    "sheet": (SHEET, _as_sheet),
}


def _submit(cluster: Cluster, tenant: str, body: bytes, config: dict[str, Any]) -> UUID:
    root = "" if tenant == "default" else f"t/{tenant}/"
    S3Store(cluster.settings()).put(ObjectRef(BUCKET, root + KEY), body, content_type="application/octet-stream")
    with cluster.sessions.begin() as session:
        session.execute(text("INSERT INTO tenants (name) VALUES (:name) ON CONFLICT DO NOTHING"), {"name": tenant})
    job_type = "import" if "source" in config else "insert_csv_file"
    config = {**config, "batch_rows": 500, "lanes": 2}
    request = SubmitJob(tenant=tenant, type=job_type, config=config, created_by="test")
    return cluster.services.jobs.submit(request).job.id


def _job(cluster: Cluster, tenant: str, job_id: UUID) -> Job:
    return cluster.services.jobs.get(tenant, job_id)


def _wait_for_rows(cluster: Cluster, job_id: UUID, rows: int) -> None:
    eventually(
        lambda: _job(cluster, "default", job_id).progress.rows_done >= rows, within_s=60, what=f"{rows} rows are done"
    )


def _left(cluster: Cluster, tenant: str, job_id: UUID) -> tuple[Any, ...]:
    """The table and the ledger each as one value, its indexes, and the books."""
    with cluster.sessions.begin() as session:
        table = session.execute(
            text(
                f"SELECT count(*), md5(string_agg(row_text, chr(10) ORDER BY row_text)) FROM (SELECT "
                f"(to_jsonb(c) - 'haulier_created_at' - 'haulier_updated_at' - 'haulier_job_id')::text AS row_text "
                f"FROM t_{tenant}.contacts AS c) AS rows"
            )
        ).one()
        ledger = session.execute(
            text(
                "SELECT count(*), md5(string_agg(concat_ws('|', line, first_byte, end_byte, raw, field, code, message),"
                " chr(10) ORDER BY line)) FROM failed_records WHERE job_id = :id"
            ),
            {"id": job_id},
        ).one()
    indexes = cluster.services.tables.describe(tenant, "contacts").existing.indexes
    return tuple(table), tuple(ledger), indexes, _job(cluster, tenant, job_id).counters


@pytest.mark.feature("S4-118")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_an_import_killed_twice_leaves_what_an_undisturbed_one_leaves(
    cluster: Cluster, tmp_path: Path, seed: int, kind: str
) -> None:
    with cluster.sessions.begin() as session:
        session.execute(text("DROP SCHEMA IF EXISTS t_default CASCADE"))
        session.execute(text("DROP SCHEMA IF EXISTS t_calm CASCADE"))
        session.execute(text("TRUNCATE declared_tables, table_claims, failed_records, import_lanes, import_batches"))
    make(tmp_path / "contacts.csv", rows=ROWS)
    body = (tmp_path / "contacts.csv").read_bytes()
    config, written = KINDS[kind]
    body = written(body)
    cluster.start_engine()
    worker = cluster.start_worker(slots=1)
    calm = _submit(cluster, "calm", body, config)
    eventually(lambda: _job(cluster, "calm", calm).is_terminal, within_s=90, what="the calm import ends")
    draw = random.Random(seed)

    job_id = _submit(cluster, "default", body, config)
    for part in (draw.uniform(0.05, 0.4), draw.uniform(0.45, 1)):
        _wait_for_rows(cluster, job_id, int(ROWS * part))
        sleep(draw.uniform(0, 0.05))
        os.kill(worker.children()[0], signal.SIGKILL)
    eventually(lambda: _job(cluster, "default", job_id).is_terminal, within_s=90, what="the import ends")

    job = _job(cluster, "default", job_id)
    assert job.state is JobState.COMPLETED, job.error
    assert _left(cluster, "default", job_id) == _left(cluster, "calm", calm)
    trail = cluster.services.jobs.events("default", job_id, after=0, limit=100)
    rescues = [event.type for event in trail].count("job.rescued")
    assert rescues in (1, 2)  # the second kill may find the job at its end
    assert job.fence == 1 + rescues
    assert len(cluster.services.tables.describe("default", "contacts").existing.indexes) == len(CONTACTS.indexes)
