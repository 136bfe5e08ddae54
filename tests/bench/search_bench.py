"""Record search over a large table, as a client asks for it: milliseconds of the middle call.

    python -m tests.bench.search_bench [--rows 1000000] [--calls 200] [--json var/bench.json]

Each call asks for other values, through the whole application in this process; the database has been read once before.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import text

from app.bootstrap import build_services
from app.domain.access import Role
from app.domain.tables import Index
from app.factory import create_app
from app.persistence.migrate import upgrade
from app.persistence.sessions import Sessions
from app.runtime.stores import Stores
from app.storage.s3 import S3Store
from config.settings import Settings
from tasks.types import reconcile_indexes
from tests.bench.export_bench import FILL, TABLE
from tests.bench.results import keep
from tests.integration.imports import Importing

SEARCHED = replace(
    TABLE,
    indexes=(
        Index(("email",)),
        Index(("company_name",)),
        Index(("email",), trigram=True),
        Index(("company_name",), trigram=True),
        Index(("company_name",), words=True),
    ),
)
_WARM = 20
_COMPANIES = ("Acme", "Globex", "Hooli", "Cyberdyne")


def _text(key: str, value: str, kind: str, **more: Any) -> dict[str, Any]:
    item = {"text_value": value, "filter_key": key, "search_type": kind, **more}
    return {"where": {"text_matches": {"must": [item]}}}


def _company(n: int) -> str:
    return f"{_COMPANIES[n % 50_000 % 4]} {n % 50_000}"


SEARCHES: dict[str, tuple[int, Callable[[int], dict[str, Any]]]] = {
    "an indexed column, one row": (
        20,
        lambda n: {
            "where": {
                "keyword_match": {"must": {"email": f"carlos.garcia{n * 63 + 1}@example{(n * 63 + 1) % 50000}.com"}}
            }
        },
    ),
    "an indexed column, twenty rows": (
        20,
        lambda n: {
            "where": {"keyword_match": {"must": {"company_name": [f"{_company(n)} Holdings, Ltd."]}}},
            "order_by": [{"order_by": "created_at", "order_direction": "desc"}],
        },
    ),
    "part of a text by trigrams": (150, lambda n: _text("email", f"garcia{n * 4999}", "substring")),
    "similar words by trigrams": (
        150,
        lambda n: _text("company_name", f"Cyberdine {n * 7}", "shuffle", fuzzy=True, operator="and"),
    ),
    "whole words": (150, lambda n: _text("company_name", f"{n * 7} holdings", "shuffle", operator="and")),
}
"""What is searched: the goal in milliseconds, and the query of a call."""


def measure(client: FlaskClient, headers: dict[str, str], *, rows: int, calls: int) -> list[dict[str, Any]]:
    results = []
    for name, (goal_ms, query) in SEARCHES.items():
        took_ms, found = [], 0
        for call in range(calls + _WARM):
            body = {"vql": query(call)}
            start = perf_counter()
            answer = client.post(f"/v1/tables/{TABLE.name}/records:query", json=body, headers=headers)
            if call >= _WARM:
                took_ms.append((perf_counter() - start) * 1000)
            if answer.status_code != 200:
                raise SystemExit(f"{name}: {answer.get_data(as_text=True)[:500]}")
            found += len(answer.get_json()["items"])
        if not found:
            raise SystemExit(f"{name}: nothing was found")
        middle, worst = statistics.median(took_ms), statistics.quantiles(took_ms, n=20)[-1]
        print(f"search, {name}: p50 {middle:.1f} ms (goal {goal_ms}), p95 {worst:.1f} ms, {found} rows in all")
        results.append(
            {
                "name": f"search by {name} over {rows:,} rows, p50 in ms",
                "ratio": round(middle, 2),
                "goal": goal_ms,
                "runs": calls,
            }
        )
    return results


def build_indexes(settings: Settings, sessions: Sessions) -> None:
    """Do the job that a change of a table with rows has submitted."""
    here = Importing(settings, sessions, S3Store(settings), job_type=reconcile_indexes.JOB_TYPE)
    ((job_id,),) = here.rows("SELECT id FROM jobs WHERE type = :type", type=here.job_type.name)
    here.run(here.context(job_id))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--json", type=Path, default=Path("var/bench.json"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="haulier-bench-"))
    folder.chmod(0o755)
    settings_of_postgres = {"shared_buffers": "1GB", "max_wal_size": "4GB", "maintenance_work_mem": "512MB"}
    stores = Stores(folder, postgres_settings=settings_of_postgres, buckets=("haulier-bench",), throw_away=True)
    try:
        stores.start()
        upgrade(stores.database_url)
        settings = Settings(database_url=stores.database_url, redis_url=stores.redis_url)
        services = build_services(settings, application_name="bench", pool_size=4)
        services.tables.declare("default", TABLE)
        with services.sessions.begin() as session:
            session.execute(text(FILL), {"rows": arguments.rows})
        services.tables.declare("default", replace(SEARCHED, version=TABLE.version + 1))
        build_indexes(settings, services.sessions)
        engine = services.sessions.kw["bind"]
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"VACUUM (ANALYZE, FREEZE) t_default.{TABLE.name}"))
        key, _ = services.keys.create("default", Role.MEMBER, created_by="bench")
        client = create_app(settings, services).test_client()
        keep(arguments.json, measure(client, {"X-API-Key": key}, rows=arguments.rows, calls=arguments.calls))
        engine.dispose()
    finally:
        stores.remove()


if __name__ == "__main__":
    sys.exit(main())
