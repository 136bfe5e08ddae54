"""Imports against psql in paired runs: a contacts CSV of 15 columns into a table with its key and three indexes.

    python -m tests.bench.import_bench [--rows 1000000] [--runs 3] [--json var/bench.json]

A pair is one run of each, the order alternating; a ratio is the other's time over ours, and the median of the pairs
counts. psql copies a file on disk into an unlogged stage and upserts from there; we read it from S3. Table reset and
checkpoint lie outside every time. An import is the job type's whole ``run`` in a process of its own, whose peak memory
is taken too (``large_bench`` takes a worker's, of large files). Postgres has shared_buffers of 1 GB and max_wal_size of
4 GB for both.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO
from uuid import UUID

from sqlalchemy import create_engine, text

from app.dataplane.tables import qualified
from app.domain.clock import SystemClock
from app.domain.jobs import Job, Origin, SubmitJob
from app.domain.ports import ObjectRef
from app.domain.tables import Column, ColumnType, Index, Table
from app.persistence import jobs
from app.persistence.migrate import upgrade
from app.persistence.sessions import Sessions, driver_url, make_sessions, open_engine
from app.runtime.postgres import bundled_binaries
from app.runtime.stores import Stores
from app.services.tables import Tables
from app.storage.s3 import S3Store
from config.settings import Settings
from tasks.context import RunContext
from tasks.types.import_rows import JOB_TYPE as IMPORT
from tasks.types.insert_csv_file import JOB_TYPE
from tests.bench.results import keep
from tests.factories import stored

BUCKET = "haulier-bench"
TEXTS = ("first_name", "last_name", "email", "title", "seniority", "department")
TABLE = Table(
    "people",
    (
        Column("uuid", ColumnType.UUID),
        *(Column(name, ColumnType.TEXT, format="email" if name == "email" else None) for name in TEXTS),
        Column("company_id", ColumnType.UUID),
        *(Column(name, ColumnType.TEXT) for name in ("company_name", "country", "city", "phone", "linkedin_url")),
        Column("employees_count", ColumnType.INTEGER),
        Column("created_at", ColumnType.TIMESTAMPTZ),
    ),
    key=("uuid",),
    indexes=(Index(("email",)), Index(("company_id",)), Index(("created_at",))),
)
COLUMNS = TABLE.column_names
REAL = qualified("default", TABLE.name)


# The file


def people(rows: int, *, bad: float = 0.0, seed: int = 42) -> Iterator[list[str]]:
    """Rows of ``COLUMNS``; of every 1/``bad`` rows one is bad, by turns in key, number, date, shape or e-mail."""
    chosen = random.Random(seed)
    first = "Anna Bela Carlos Dmitri Élodie Farah Gustav Hana José Nguyễn Olga Søren Uma Wei Yusuf Zoë".split()  # noqa: SIM905 - easier to read
    last = "Smith Garcia Müller Kowalski O'Brien Nakamura Singh Silva Ivanova Novák Yılmaz Kim".split()  # noqa: SIM905 - easier to read
    titles = ["Engineer", "VP, Sales", "Head of Marketing", 'Manager, "Special" Projects', "Analyst", "Founder & CEO"]
    places = [("United States", "Austin"), ("Germany", "München"), ("India", "Pune"), ("Brazil", "São Paulo")]
    firms = ["Acme", "Globex", "Initech", "Hooli", "Stark", "Wonka"]
    kinds = ["Inc.", "GmbH", "Holdings, Ltd.", "S.A.", "& Sons"]
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    every = round(1 / bad) if bad else 0
    for number in range(rows):
        given, family, firm = chosen.choice(first), chosen.choice(last), chosen.randrange(50_000)
        country, city = chosen.choice(places)
        row = [
            str(UUID(int=chosen.getrandbits(128), version=4)),
            given,
            family,
            f"{given}.{family}{number}@example{firm}.com".lower(),
            chosen.choice(titles),
            chosen.choice(["entry", "senior", "manager", "vp", ""]),
            chosen.choice(["engineering", "sales", "finance", ""]),
            str(UUID(int=firm * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128), version=4)),
            f"{firms[firm % 6]} {firm} {kinds[firm % 5]}",
            country,
            city,
            f"+{chosen.randrange(1, 99)} {chosen.randrange(100, 999)} {chosen.randrange(10**6, 10**7)}",
            f"https://www.linkedin.com/in/{given}-{family}-{number:x}".lower(),
            str(firm * 37 % 20_000 + 1),
            (begin + timedelta(seconds=chosen.randrange(157_680_000))).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ]
        if every and number % every == every - 1:
            _spoil(row, number // every)
        yield row


def _spoil(row: list[str], turn: int) -> None:
    match turn % 5:
        case 0:
            row[0] = f"not-a-uuid-{turn}"
        case 1:
            row[13] = "many"
        case 2:
            row[14] = "2023-13-45T99:00:00Z"
        case 3:
            row.pop()
        case _:
            row[3] = "nobody"


def write_file(path: Path, rows: int, *, bad: float = 0.0) -> None:
    """Write a file of ``people`` with its header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(people(rows, bad=bad))


# The runs


@dataclass(frozen=True)
class Run:
    """One import: seconds, and our peak memory (0 for psql)."""

    seconds: float
    rss_mb: int = 0


@dataclass
class Bench:
    """A set of stores, files in S3 and on disk, and the runs on them."""

    stores: Stores
    settings: Settings
    sessions: Sessions
    folder: Path
    rows: int
    lanes: int | None
    batch_rows: int | None

    def reset(self) -> None:
        """An empty table and stage, and nothing left for a checkpoint to do."""
        with create_engine(driver_url(self.stores.database_url), isolation_level="AUTOCOMMIT").connect() as connection:
            types = ", ".join(f"{column.name} text" for column in TABLE.columns)
            for statement in (
                f"TRUNCATE {REAL}",
                "DROP TABLE IF EXISTS stage",
                f"CREATE UNLOGGED TABLE stage ({types})",
                "CHECKPOINT",
            ):
                connection.execute(text(statement))

    def empty_stage(self) -> None:
        """An empty stage; the table as it is."""
        with create_engine(driver_url(self.stores.database_url), isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("TRUNCATE stage"))
            connection.execute(text("CHECKPOINT"))

    def psql(self, *statements: str) -> Run:
        """Run statements by psql, one after another."""
        command = [str(_psql()), "-X", "-q", "-v", "ON_ERROR_STOP=1", self.stores.database_url]
        begin = perf_counter()
        subprocess.run(command + [part for one in statements for part in ("-c", one)], check=True)
        return Run(perf_counter() - begin)

    def psql_upsert(self, name: str) -> Run:
        """Limit 3 of PERFORMANCE: unlogged stage, then ON CONFLICT DO UPDATE of every column."""
        types = {"uuid": "uuid", "company_id": "uuid", "employees_count": "int", "created_at": "timestamptz"}
        values = ", ".join(f"nullif({name}, '')::{types[name]}" if name in types else name for name in COLUMNS)
        sets = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name != "uuid")
        return self.psql(
            f"\\copy stage from '{self.folder / name}' with (format csv, header)",
            f"INSERT INTO {REAL} ({', '.join(COLUMNS)}) SELECT {values} FROM stage "
            f"ON CONFLICT (uuid) DO UPDATE SET {sets}",
        )

    def psql_copy(self, name: str) -> Run:
        """A bare copy into the table."""
        return self.psql(f"\\copy {REAL} ({', '.join(COLUMNS)}) from '{self.folder / name}' with (format csv, header)")

    def bring(self, name: str, rows: int, *, bad: float = 0.0) -> None:
        """Write a file to the disk and to S3."""
        write_file(self.folder / name, rows, bad=bad)
        with (self.folder / name).open("rb") as file:
            self.put(name, file)

    def put(self, name: str, data: bytes | BinaryIO) -> None:
        """Put a file into S3."""
        S3Store(self.settings).put(ObjectRef(BUCKET, name), data, content_type="text/csv")

    def ours(self, name: str) -> Run:
        """The main job."""
        return self.job(JOB_TYPE.name, name, {"s3_key": name})

    def general(self, name: str) -> Run:
        """The job of the type ``import``."""
        return self.job(IMPORT.name, name, {"source": {"s3": {"key": name}}})

    def job(self, kind: str, name: str, config: dict[str, Any]) -> Run:
        """An import job, claimed, in a process of its own."""
        config |= {"table": TABLE.name}
        config |= {} if self.lanes is None else {"lanes": self.lanes}
        config |= {} if self.batch_rows is None else {"batch_rows": self.batch_rows}
        request = SubmitJob("default", kind, config, "bench", Origin.NATIVE)
        with self.sessions.begin() as session:
            job_id = stored(session, request, queue="bench", retry=JOB_TYPE.retry).id
            session.execute(text("UPDATE jobs SET state = 'running', fence = 1 WHERE id = :id"), {"id": job_id})
            job = jobs.get(session, "default", job_id)
        receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=_import, args=(self.settings, job, sender))
        process.start()
        sender.close()
        seconds, rss_mb, books = receiver.recv()
        process.join()
        print(f"    {name}: {books}", file=sys.stderr)
        return Run(seconds, rss_mb)


def _import(settings: Settings, job: Job, sender: Any) -> None:
    url = settings.database_url.get_secret_value()
    sessions = make_sessions(open_engine(url, application_name="bench", pool_size=8, worker=True))
    context = RunContext(job, settings=settings, sessions=sessions, objects=S3Store(settings), clock=SystemClock())
    job_type = IMPORT if job.type == IMPORT.name else JOB_TYPE
    begin = perf_counter()
    result = job_type.run(context, job_type.config.model_validate(job.config))
    seconds = perf_counter() - begin
    assert result is not None
    sender.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, result.data["books"]))


def _psql() -> Path:
    bundled = bundled_binaries() / "psql"
    found = bundled if bundled.exists() else shutil.which("psql")
    if found is None:
        sys.exit("psql is not installed")
    return Path(found)


@dataclass(frozen=True)
class Measured:
    """A ratio of paired runs, in the form that ``make bench`` collects."""

    name: str
    ratio: float
    goal: float
    runs: list[dict[str, float]]


def paired(name: str, goal: float, runs: int, other: Callable[[], Run], ours: Callable[[], Run]) -> Measured:
    """The median of ``other``'s time over ``ours``; who goes first alternates."""
    pairs = []
    for number in range(runs):
        first, second = (other, ours) if number % 2 == 0 else (ours, other)
        one, two = first(), second()
        theirs, mine = (one, two) if number % 2 == 0 else (two, one)
        pairs.append({"other_s": theirs.seconds, "ours_s": mine.seconds, "rss_mb": mine.rss_mb or theirs.rss_mb})
        ratio = theirs.seconds / mine.seconds
        print(f"  {name}: {theirs.seconds:.2f} s / {mine.seconds:.2f} s = {ratio:.2f}, {mine.rss_mb} MB", flush=True)
    return Measured(name, statistics.median(pair["other_s"] / pair["ours_s"] for pair in pairs), goal, pairs)


def measure(bench: Bench, runs: int, only: str | None) -> list[Measured]:
    """All of it, or the measurement whose name holds ``only``."""
    bench.bring("clean.csv", bench.rows)
    bench.bring("bad.csv", bench.rows, bad=0.01)

    def fresh(run: Callable[[str], Run], name: str) -> Callable[[], Run]:
        def once() -> Run:
            bench.reset()
            return run(name)

        return once

    def again(run: Callable[[str], Run]) -> Callable[[], Run]:
        def once() -> Run:
            bench.reset()
            bench.psql_copy("clean.csv")
            bench.empty_stage()
            return run("clean.csv")

        return once

    planned: list[tuple[str, float, Callable[[], Run], Callable[[], Run]]] = [
        (
            "import into an empty table / psql stage + upsert",
            2.0,
            fresh(bench.psql_upsert, "clean.csv"),
            fresh(bench.ours, "clean.csv"),
        ),
        (
            "import into an empty table / bare copy",
            1.0,
            fresh(bench.psql_copy, "clean.csv"),
            fresh(bench.ours, "clean.csv"),
        ),
        ("the same file again / psql plain upsert again", 1.7, again(bench.psql_upsert), again(bench.ours)),
        ("1 % bad rows / its own clean file", 0.95, fresh(bench.ours, "clean.csv"), fresh(bench.ours, "bad.csv")),
    ]
    return [
        paired(name, goal, runs, other, ours) for name, goal, other, ours in planned if only is None or only in name
    ]


def run(measure: Callable[[Bench, int, str | None], list[Measured]]) -> None:
    """Measure on stores of their own and print; ``--json`` adds the result to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--batch-rows", type=int)
    parser.add_argument("--only", help="part of a measurement's name")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="haulier-bench-"))
    folder.chmod(0o755)
    stores = Stores(
        folder / "stores",
        postgres_settings={"shared_buffers": "1GB", "max_wal_size": "4GB"},
        buckets=(BUCKET,),
        throw_away=True,
    )
    try:
        stores.start()
        measured = measure(_prepared(stores, folder, asked), asked.runs, asked.only)
    finally:
        stores.remove()
        shutil.rmtree(folder, ignore_errors=True)
    for one in measured:
        print(f"{one.name:55} {one.ratio:5.2f}  (goal {one.goal})")
    if asked.json:
        keep(
            asked.json,
            [
                {
                    "name": one.name,
                    "ratio": round(one.ratio, 3),
                    "goal": one.goal,
                    "runs": len(one.runs),
                    "pairs": one.runs,
                }
                for one in measured
            ],
        )


def _prepared(stores: Stores, folder: Path, asked: argparse.Namespace) -> Bench:
    upgrade(stores.database_url)
    settings = Settings(
        database_url=stores.database_url,
        redis_url=stores.redis_url,
        s3_endpoint=stores.s3_endpoint,
        s3_access_key_id=stores.s3_access_key_id,
        s3_secret_access_key=stores.s3_secret_access_key,
        s3_bucket=BUCKET,
    )
    sessions = make_sessions(open_engine(stores.database_url, application_name="bench"))
    Tables(sessions).declare("default", TABLE)
    return Bench(stores, settings, sessions, folder, asked.rows, asked.lanes, asked.batch_rows)


if __name__ == "__main__":
    run(measure)
