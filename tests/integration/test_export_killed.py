"""Exports whose process is killed with SIGKILL at some instant, again and again, until one ends."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.domain.clock import SystemClock
from app.domain.jobs import SubmitJob
from app.domain.ports import ObjectRef
from app.persistence import jobs
from app.persistence.sessions import Sessions, make_sessions, open_engine
from app.services.tables import Tables
from app.storage.s3 import S3Store
from config.settings import Settings
from tasks.context import RunContext
from tasks.types.export_csv_file import JOB_TYPE, ExportConfig, run
from tests.factories import stored
from tests.killing import SEEDS

ROWS = 100_000
CONFIG = {"service": "contact", "vql": {"select_columns": ["id", "uuid", "title"]}}


def hold_and_run(settings: Settings, job_id: UUID, began: Any = None) -> None:
    """What a worker process does with the job, without a worker around it."""
    engine = open_engine(settings.database_url.get_secret_value(), application_name="killed")
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'running', fence = fence + 1 WHERE id = :id"), {"id": job_id})
        job = jobs.get(session, "default", job_id)
    if began is not None:
        began.set()
    context = RunContext(job, settings=settings, sessions=sessions, objects=S3Store(settings), clock=SystemClock())
    run(context, ExportConfig.model_validate(job.config))


@pytest.mark.fault
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_any_instant_an_export_ends_with_one_whole_file(
    settings: Settings, sessions: Sessions, seed: int
) -> None:
    Tables(sessions).get("default", "contacts")
    with sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO t_default.contacts (id, uuid, title) SELECT g, md5(g::text)::uuid, repeat('title ', 20) "
                "FROM generate_series(1, :rows) AS g"
            ),
            {"rows": ROWS},
        )
        request = SubmitJob("default", JOB_TYPE.name, CONFIG, "test")
        job = stored(session, request)
    chance = random.Random(seed)
    spawn = multiprocessing.get_context("spawn")
    exits = []

    for _ in range(4):
        began = spawn.Event()
        process = spawn.Process(target=hold_and_run, args=(settings, job.id, began))
        process.start()
        assert began.wait(60)
        process.join(chance.uniform(0, 1.2))
        process.kill()
        process.join()
        exits.append(process.exitcode)
    hold_and_run(settings, job.id)

    assert -9 in exits
    key = f"uploads/{job.id}.csv"
    store = S3Store(settings)
    with store.open(ObjectRef(settings.s3_bucket, key)) as reader:
        body = reader.read()
    assert body.count(b"\n") == ROWS + 1
    assert len(set(body.splitlines())) == ROWS + 1
    with sessions.begin() as session:
        (file,) = session.execute(text("SELECT sha256, rows, size_bytes FROM artifacts WHERE kind = 'export'")).all()
    assert tuple(file) == (hashlib.sha256(body).hexdigest(), ROWS, len(body))
    assert [name for name, _ in store.list(settings.s3_bucket, key)] == [key, f"{key}.manifest.json"]
