"""Exports against psql in paired runs: rows of a contacts-like table as gzip CSV, to S3 by us and to a file by psql.

    python -m tests.bench.export_bench [--rows 1000000] [--runs 5] [--json var/bench.json]

A pair is one run of each, the order alternating; a ratio is psql's time over ours, and the median of the pairs counts.
The export is the job type's whole ``run`` (checkpoints, manifest, artifacts) in a process of its own, whose peak memory
is taken too. Postgres has shared_buffers of 1 GB and max_wal_size of 4 GB for both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from sqlalchemy import text

from app.domain.clock import SystemClock
from app.domain.job_types import JobType
from app.domain.jobs import SubmitJob
from app.domain.tables import Column, ColumnType, Table
from app.persistence import jobs
from app.persistence.migrate import upgrade
from app.persistence.sessions import make_sessions, open_engine
from app.runtime.postgres import bundled_binaries
from app.runtime.stores import Stores
from app.services.tables import Tables
from app.storage.s3 import S3Store
from config.settings import Settings
from tasks.context import RunContext
from tasks.types import export_csv_file, export_rows
from tests.bench.results import keep
from tests.factories import stored

BUCKET = "haulier-bench"
TEXTS = "first_name last_name email title seniority department company_name country city phone linkedin_url".split()  # noqa: SIM905 - easier to read
TABLE = Table(
    "bench_contacts",
    (
        Column("uuid", ColumnType.UUID),
        *(Column(name, ColumnType.TEXT) for name in TEXTS),
        Column("company_id", ColumnType.UUID),
        Column("employees_count", ColumnType.INTEGER),
        Column("created_at", ColumnType.TIMESTAMPTZ),
    ),
    key=("uuid",),
)
FILL = """
INSERT INTO t_default.bench_contacts
    (uuid, first_name, last_name, email, title, seniority, department, company_name, country, city, phone, linkedin_url,
     company_id, employees_count, created_at)
SELECT md5(g::text)::uuid, f, l, lower(f || '.' || l) || g || '@example' || g % 50000 || '.com',
       (ARRAY['Software Engineer', 'VP, Sales', 'Head of Marketing', 'Manager, "Special"', 'Analyst'])[1 + g % 5],
       (ARRAY['entry', 'senior', 'manager', 'director', NULL])[1 + g % 5],
       (ARRAY['engineering', 'sales', 'marketing', 'human_resources'])[1 + g % 4],
       (ARRAY['Acme', 'Globex', 'Hooli', 'Cyberdyne'])[1 + g % 4] || ' ' || g % 50000 || ' Holdings, Ltd.',
       (ARRAY['United States', 'Germany', 'India', 'Brazil'])[1 + g % 4],
       (ARRAY['New York', 'München', 'Bengaluru', 'São Paulo'])[1 + g % 4],
       CASE WHEN g % 10 < 7 THEN '+' || g % 99 || ' ' || 100 + g % 900 || ' ' || 1000000 + g * 7919 % 9000000 END,
       'https://www.linkedin.com/in/' || lower(f || '-' || l) || '-' || to_hex(g),
       md5((g % 50000)::text)::uuid, g * 37 % 20000 + 1,
       timestamptz '2020-01-01 00:00+00' + (g::bigint * 104729 % 157680000) * interval '1 second'
FROM (SELECT g, (ARRAY['Anna', 'Carlos', 'Élodie', 'Gustav', 'Hana', 'José', 'Nguyễn', 'Søren', 'Zoë'])[1 + g % 9] AS f,
             (ARRAY['Smith', 'Garcia', 'Müller', 'O''Brien', 'Nakamura', 'Yılmaz', 'Kim'])[1 + g % 7] AS l
      FROM generate_series(1, CAST(:rows AS bigint)) AS g) AS names
"""


@dataclass(frozen=True)
class Run:
    """One export: seconds, peak memory of its process, what it wrote."""

    wall_s: float
    peak_mb: float = 0.0
    rows: int = 0
    cpu_s: float = 0.0


def export_once(settings: Settings, config: dict[str, Any], job_type: JobType, result: Any) -> None:
    """One whole export; puts a ``Run`` into ``result``."""
    engine = open_engine(settings.database_url.get_secret_value(), application_name="bench")
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        request = SubmitJob("default", job_type.name, config, "bench")
        job = stored(session, request)
        session.execute(text("UPDATE jobs SET state = 'running', fence = 1 WHERE id = :id"), {"id": job.id})
        job = jobs.get(session, "default", job.id)
    context = RunContext(job, settings=settings, sessions=sessions, objects=S3Store(settings), clock=SystemClock())
    start, cpu_before_s = perf_counter(), process_time()
    done = job_type.run(context, job_type.config.model_validate(config))
    wall_s, cpu_s = perf_counter() - start, process_time() - cpu_before_s
    rows = done.data["rows"] if done else 0
    result.put(Run(wall_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, rows, cpu_s))


def ours(settings: Settings, vql: dict[str, Any]) -> Run:
    return exported(settings, {"vql": vql, "compression": "gzip"}, export_csv_file.JOB_TYPE)


def exported(settings: Settings, config: dict[str, Any], job_type: JobType = export_rows.JOB_TYPE) -> Run:
    spawn = multiprocessing.get_context("spawn")
    result = spawn.SimpleQueue()
    process = spawn.Process(target=export_once, args=(settings, {"table": TABLE.name, **config}, job_type, result))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit("an export failed")
    run_: Run = result.get()
    return run_


def psql(url: str, select: str, file: Path, packer: str = "gzip") -> Run:
    """A copy to standard output, packed at level 1 into ``file``."""
    program = shutil.which("psql") or str(bundled_binaries() / "psql")
    start = perf_counter()
    with file.open("wb") as out:
        reader = subprocess.Popen(
            [program, "-X", "-q", url, "-c", f"COPY ({select}) TO STDOUT (FORMAT csv, HEADER)"], stdout=subprocess.PIPE
        )
        packing = subprocess.Popen([packer, "-1"], stdin=reader.stdout, stdout=out)
        if packing.wait() or reader.wait():
            raise SystemExit("psql failed")
    return Run(perf_counter() - start)


def pairs(runs: int, one: Callable[[], Run], other: Callable[[], Run]) -> list[tuple[Run, Run]]:
    """``runs`` pairs of both, after one of each to warm up, the order alternating."""
    one(), other()
    found = []
    for number in range(runs):
        if number % 2:
            second, first = other(), one()
        else:
            first, second = one(), other()
        found.append((first, second))
    return found


def encryption(settings: Settings, vql: dict[str, Any], compression: str, runs: int) -> dict[str, Any]:
    """What an encrypted export takes more than a plain one; at most 1.3 times as long."""
    plain = {"vql": vql, "compression": compression}
    found = pairs(runs, lambda: exported(settings, plain), lambda: exported(settings, {**plain, "encrypted": True}))
    ratio = statistics.median(one.wall_s / other.wall_s for one, other in found)
    cpu = statistics.median(other.cpu_s / one.cpu_s for one, other in found)
    name = f"encrypted export against a plain one, compression {compression}"
    print(f"{name}: {ratio:.3f} (goal 0.77); its own CPU {cpu:.2f} times")
    return {"name": name, "ratio": round(ratio, 3), "goal": 0.77, "runs": runs}


def measure(settings: Settings, *, rows: int, runs: int, folder: Path) -> list[dict[str, Any]]:
    columns = ", ".join(TABLE.column_names)
    select = f"SELECT {columns} FROM t_default.{TABLE.name}"
    vql = {"select_columns": list(TABLE.column_names)}
    ordered = vql | {"order_by": [{"order_by": "uuid", "order_direction": "desc"}]}
    url = settings.database_url.get_secret_value()
    results = []
    planned = [
        ("export gzip to S3, unordered, against psql | gzip -1", 1.6, vql, select, "gzip"),
        (
            "export gzip to S3, ordered, against psql ORDER BY | gzip -1",
            0.9,
            ordered,
            f"{select} ORDER BY uuid DESC",
            "gzip",
        ),
    ]
    if shutil.which("pigz"):
        planned.append(("export gzip to S3, unordered, against psql | pigz -1", 1.0, vql, select, "pigz"))
    else:
        print("export against psql | pigz -1: left out, pigz is not installed; gzip -1 is the other side throughout")
    for name, goal, query, sql, packer in planned:
        found = pairs(runs, lambda: ours(settings, query), lambda: psql(url, sql, folder / "psql.csv.gz", packer))  # noqa: B023 - called within the turn
        ratios = sorted(theirs.wall_s / mine.wall_s for mine, theirs in found)
        results.append({"name": name, "ratio": round(statistics.median(ratios), 3), "goal": goal, "runs": runs})
        rate = rows / statistics.median(mine.wall_s for mine, _ in found)
        print(
            f"{name}: {results[-1]['ratio']} (goal {goal}); ratios {[round(r, 2) for r in ratios]}; {rate:,.0f} rows/s"
        )
    results += [encryption(settings, vql, compression, runs) for compression in ("none", "gzip")]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("var/bench.json"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="haulier-bench-"))
    folder.chmod(0o755)
    stores = Stores(
        folder,
        postgres_settings={"shared_buffers": "1GB", "max_wal_size": "4GB"},
        buckets=(BUCKET,),
        throw_away=True,
    )
    try:
        stores.start()
        upgrade(stores.database_url)
        settings = Settings(
            database_url=stores.database_url,
            redis_url=stores.redis_url,
            s3_endpoint=stores.s3_endpoint,
            s3_access_key_id=stores.s3_access_key_id,
            s3_secret_access_key=stores.s3_secret_access_key,
            s3_bucket=BUCKET,
            master_key="m" * 32,
        )
        engine = open_engine(stores.database_url, application_name="bench")
        sessions = make_sessions(engine)
        Tables(sessions).declare("default", TABLE)
        with sessions.begin() as session:
            session.execute(text(FILL), {"rows": arguments.rows})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"VACUUM (ANALYZE, FREEZE) t_default.{TABLE.name}"))
        engine.dispose()
        keep(arguments.json, measure(settings, rows=arguments.rows, runs=arguments.runs, folder=folder))
    finally:
        stores.remove()


if __name__ == "__main__":
    sys.exit(main())
