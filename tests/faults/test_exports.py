"""Exports in parts whose process is killed, twice in one job, leave what undisturbed ones leave."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from time import sleep
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from app.cli.main import main
from app.domain.jobs import Job
from app.domain.lifecycle import JobState
from app.domain.ports import ObjectRef
from app.domain.tables import Column, ColumnType, Table
from app.persistence import artifacts
from app.runtime.stores import Stores
from app.services.leftovers import Leftovers
from app.services.tables import Tables
from app.storage.s3 import S3Store
from tests.faults.cluster import BUCKET, Cluster, eventually
from tests.killing import SEEDS

pytestmark = pytest.mark.fault

SECRET = "signs the manifests of fault tests"
ROWS = 50_000
INVALID = ROWS // 1_000
ROWS_PER_PART = 2_000
PARTS = -(-(ROWS - INVALID) // ROWS_PER_PART)
PART_S = 0.2
"""About what one part takes while four exports are at work."""
THINGS = Table(
    "things",
    (
        Column("id", ColumnType.BIGINT),
        Column("email", ColumnType.TEXT, format="email"),
        Column("note", ColumnType.TEXT),
    ),
    ("id",),
)
FORMATS = (
    {"format": "csv", "compression": "gzip"},
    {"format": "ndjson", "compression": "zstd", "key": "mine/{job_id}"},
)
OF_ITS_RUN = {"job_id", "snapshot", "created", "signature"}
"""In which the manifests and results of two exports of the same rows differ, beside the names of their files."""


class Later:
    """A clock that is three days ahead."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=3)


@pytest.fixture
def cluster(fault_stores: Stores, tmp_path: Path) -> Iterator[Cluster]:
    """One that signs its manifests."""
    cluster = Cluster(fault_stores, tmp_path, HAULIER_SECRET_KEY=SECRET)
    yield cluster
    cluster.close()


class Exports:
    """Exports of one table, and what they leave."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.store = S3Store(cluster.settings())

    def fill(self) -> None:
        """The table, made anew."""
        with self.cluster.sessions.begin() as session:
            session.execute(text("DROP SCHEMA IF EXISTS t_default CASCADE"))
            session.execute(text("TRUNCATE declared_tables, failed_records, artifacts, export_names"))
        Tables(self.cluster.sessions).declare("default", THINGS)
        with self.cluster.sessions.begin() as session:
            session.execute(
                text(
                    "INSERT INTO t_default.things (id, email, note) SELECT g, 'person' || g || CASE WHEN g % 1000 = 0 "
                    "THEN '' ELSE '@example.com' END, repeat(md5(g::text), 6) FROM generate_series(1, :rows) AS g"
                ),
                {"rows": ROWS},
            )

    def submit(self, **how: Any) -> UUID:
        config = {"table": "things", "filter_invalid": True, "max_rows_per_part": ROWS_PER_PART, **how}
        (job_id,) = self.cluster.submit("export", **config)
        return job_id

    def job(self, job_id: UUID) -> Job:
        return self.cluster.services.jobs.get("default", job_id)

    def sent(self, job_id: UUID) -> dict[str, str]:
        """The files whose bytes S3 has, with the uploads that they came by, as the checkpoint tells."""
        files = (self.job(job_id).checkpoint or {"files": []})["files"]
        return {one["key"]: one["upload_id"] for one in files if one["etags"] or one["joined"]}

    def kill_when_due(self, plans: Sequence[Plan]) -> bool:
        """Kill the processes of those exports that have come to the next place of their plans; whether all are done."""
        for plan in [plan for plan in plans if plan.is_left]:
            job = self.job(plan.job_id)
            sent, after_s = plan.places[len(plan.kept)]
            if job.state is JobState.RUNNING and job.fence == len(plan.kept) + 1 and len(self.sent(job.id)) >= sent:
                sleep(after_s)
                plan.kept.append(self.sent(job.id))
                os.kill(self._process_of(job), signal.SIGKILL)
        return not any(plan.is_left for plan in plans)

    def _process_of(self, job: Job) -> int:
        with self.cluster.sessions.begin() as session:
            pid = session.execute(text("SELECT pid FROM workers WHERE id = :id"), {"id": job.worker})
            return int(pid.scalar_one())

    def sweep(self) -> None:
        """What is done days later."""
        leftovers = Leftovers(self.cluster.sessions, self.store, self.cluster.settings(), Later())
        leftovers.drop_orphaned_parts()
        leftovers.remove_given_up_exports()

    def left(self, job_id: UUID, folder: Path) -> Left:
        """All that an export has left, but for its own names and times."""
        job = self.job(job_id)
        assert job.state is JobState.COMPLETED, job.error
        assert job.result is not None
        stored = self._download(job.result["manifest_key"], folder)
        with self.cluster.sessions.begin() as session:
            shown = sorted(artifacts.of_job(session, "default", job_id), key=lambda one: one.ref.key)
        assert {one.ref.key: one.size_bytes for one in shown} == {key: len(body) for key, body in stored.items()}
        manifest = json.loads(stored.pop(job.result["manifest_key"]))
        told = {
            "manifest": {name: value for name, value in manifest.items() if name not in OF_ITS_RUN},
            "result": {name: value for name, value in job.result.items() if name not in OF_ITS_RUN},
            "artifacts": [(one.ref.key, one.rows, one.sha256) for one in shown],
            "verified": _verified(folder),
        }
        counts = (job.outcome, job.progress, job.counters, job.error_count, job.attempts)
        return Left(list(stored.values()), json.dumps(told).replace(str(job_id), "JOB"), counts)

    def _download(self, manifest_key: str, folder: Path) -> dict[str, bytes]:
        """Whatever is there under the names of an export, in their order; in a folder too."""
        folder.mkdir()
        stored = {}
        for key, _ in self.store.list(BUCKET, manifest_key.removesuffix(".manifest.json")):
            with self.store.open(ObjectRef(BUCKET, key)) as reader:
                stored[key] = reader.read()
            (folder / key.rsplit("/", 1)[-1]).write_bytes(stored[key])
        return stored


@dataclass(frozen=True, slots=True)
class Plan:
    """Where an export is to be killed: so many seconds after so many files were sent; which they were each time."""

    job_id: UUID
    places: Sequence[tuple[int, float]]
    kept: list[dict[str, str]] = field(default_factory=list)

    @property
    def is_left(self) -> bool:
        return len(self.kept) < len(self.places)


@dataclass(frozen=True, slots=True)
class Left:
    """What an export has left: the bytes of its files, what is told of them as JSON, and how the job counts."""

    bodies: list[bytes]
    told: str
    counts: tuple[Any, ...]


def _verified(folder: Path) -> str:
    """What ``haulier verify`` says of a download."""
    done = CliRunner().invoke(main, ["verify", str(folder), "--require-signature"], env={"HAULIER_SECRET_KEY": SECRET})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("seed", SEEDS)
def test_exports_killed_twice_between_and_within_parts_leave_what_undisturbed_ones_leave(
    cluster: Cluster, tmp_path: Path, seed: int
) -> None:
    exports = Exports(cluster)
    exports.fill()
    cluster.start_engine()
    cluster.start_worker(slots=6)
    calm = [exports.submit(**how) for how in FORMATS]
    cluster.wait_for_all(calm)
    draw = random.Random(seed)

    plans = []
    for how, parallel in product(FORMATS, (1, 3)):
        first = draw.randint(0, PARTS // 3)
        second = draw.randint(first + 1, PARTS // 3 * 2)
        places = [(sent, draw.uniform(0, PART_S)) for sent in (first, second)]
        plans.append(Plan(exports.submit(**how, parallel=parallel), places))
    eventually(lambda: exports.kill_when_due(plans), within_s=60, what=lambda: f"all are killed twice: {plans}")
    killed = [plan.job_id for plan in plans]
    cluster.wait_for_all(killed)
    exports.sweep()

    expected = [exports.left(job_id, tmp_path / str(job_id)) for job_id in calm]
    assert [len(one.bodies) for one in expected] == [PARTS, PARTS]
    for number, plan in enumerate(plans):
        assert exports.left(plan.job_id, tmp_path / str(plan.job_id)) == expected[number // 2]
        trail = cluster.services.jobs.events("default", plan.job_id, after=0, limit=100)
        assert [event.type for event in trail].count("job.rescued") == 2
        # What was sent whole is never written again.
        assert plan.kept[0].items() <= plan.kept[1].items() <= exports.sent(plan.job_id).items()
    assert cluster.count("failed_records") == 0
    cluster.assert_sound([*calm, *killed])
    assert list(exports.store.unfinished(BUCKET)) == []
