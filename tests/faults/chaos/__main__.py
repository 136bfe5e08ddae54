"""``python -m tests.faults.chaos --seed 7``: 200 jobs of every kind, 25 faults, and what must hold afterwards."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import requests
from sqlalchemy.exc import DBAPIError

from app.cli.demo_data import Made, make
from app.domain.access import Role
from app.domain.ports import ObjectRef
from app.runtime.ports import free_port, release
from app.runtime.stores import Stores
from app.storage.s3 import S3Store
from tests.faults.chaos.faults import drawn
from tests.faults.chaos.invariants import INVARIANTS, UNHEARD, Scene
from tests.faults.chaos.site import Site
from tests.faults.chaos.traffic import CSV_KEY, Traffic
from tests.faults.cluster import BUCKET

_ROWS: Final = 2_000
_SETTLE_S: Final = 120
_STARTED: Final = monotonic()


def tell(line: str) -> None:
    print(f"{monotonic() - _STARTED:6.1f} s  {line}", flush=True)


def main() -> int:
    """0 when every invariant holds, 1 when one is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--faults", type=int, default=25)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="haulier-chaos-"))
    folder.chmod(0o755)
    stores = Stores(folder / "stores", buckets=(BUCKET,), throw_away=True)
    port = free_port()
    site = None
    sound = False
    try:
        stores.start()
        site = Site(stores, folder, port=port)
        sound = _run(site, given.seed, jobs=given.jobs, faults=given.faults)
    finally:
        if site is not None:
            site.cluster.close()
        stores.remove()
        release((port,))
        if sound:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"seed {given.seed}: {'every invariant holds' if sound else f'BROKEN; the logs are in {folder}'}")
    return 0 if sound else 1


def _run(site: Site, seed: int, *, jobs: int, faults: int) -> bool:
    file = _upload(site)
    key, _ = site.cluster.services.keys.create("default", Role.ADMIN, created_by="chaos")
    traffic = Traffic(site.url, key, random.Random(f"traffic {seed}"))
    _until(lambda: requests.get(f"{site.url}/v1/health/live", timeout=5).ok, site, within_s=60)
    tell("every process is started")
    sender = threading.Thread(target=_send, args=(traffic, jobs), name="traffic", daemon=True)
    sender.start()
    _inflict(site, random.Random(f"faults {seed}"), faults)
    _until(lambda: not sender.is_alive(), site, within_s=_SETTLE_S)
    traffic.end()
    tell(f"{traffic.jobs} jobs were sent; waiting for their ends")
    _until(lambda: _is_quiet(site), site, within_s=_SETTLE_S)
    return _judge(Scene(site, traffic, file))


def _upload(site: Site) -> Made:
    file = make(site.cluster.folder / "chaos.csv", rows=_ROWS)
    S3Store(site.cluster.settings()).put(ObjectRef(BUCKET, CSV_KEY), file.path.read_bytes(), content_type="text/csv")
    return file


def _send(traffic: Traffic, jobs: int) -> None:
    try:
        traffic.run(jobs)
    except Exception as error:  # noqa: BLE001 - it is reported with the other invariants
        traffic.unexpected.append(f"the client gave up: {error!r}")


def _inflict(site: Site, draw: random.Random, count: int) -> None:
    for fault in drawn(draw, count):
        sleep(draw.uniform(0.5, 2.5))
        site.revive()
        tell(fault.__name__.replace("_", " "))
        # One that was told to end may be gone before the fault reaches it.
        with suppress(ProcessLookupError):
            fault(site, draw)
    site.revive()


def _until(check: Callable[[], bool], site: Site, *, within_s: float) -> None:
    """Wait for ``check``, or for the time to be over; what then is still to be done, an invariant tells."""
    give_up_at = monotonic() + within_s
    while monotonic() < give_up_at:
        site.revive()
        with suppress(DBAPIError, requests.RequestException):
            if check():
                return
        sleep(0.2)


def _is_quiet(site: Site) -> bool:
    """Whether nothing is left to do: no schedule, no job, no event without its number or unheard."""
    return not (
        site.cluster.count("schedules WHERE next_fire_at IS NOT NULL")
        or site.cluster.count("jobs WHERE state NOT IN ('completed', 'failed', 'cancelled')")
        or site.cluster.count("event_segments WHERE last_seq IS NULL")
        or site.cluster.count(UNHEARD)
    )


def _judge(scene: Scene) -> bool:
    tell("over")
    _print_counts(scene)
    sound = True
    for invariant in INVARIANTS:
        offenders = invariant(scene)
        print(f"  {'holds ' if not offenders else 'BROKEN'}  {invariant.__name__.replace('_', ' ')}")
        for offender in offenders[:20]:
            print(f"          {offender}")
        sound = sound and not offenders
    return sound


def _print_counts(scene: Scene) -> None:
    traffic = scene.traffic
    states = scene.rows("SELECT type, state, count(*), sum(rescues) AS rescues FROM jobs GROUP BY 1, 2 ORDER BY 1, 2")
    print(f"  sent      {dict(sorted(traffic.kinds.items()))}")
    print(f"  steered   {dict(sorted(traffic.steered.items()))}; {traffic.repeated} requests were repeated")
    print(f"  restarts  {dict(sorted(scene.site.restarts.items()))}")
    for row in states:
        print(f"  {row.type:<16} {row.state:<10} {row.count:>5}  rescues left on them {row.rescues}")
    rescued = scene.rows("SELECT type, count(*) FROM job_events WHERE type IN ('job.rescued', 'job.handed_back',"
                         " 'job.retrying', 'job.returned') GROUP BY 1 ORDER BY 1")  # fmt: skip
    print(f"  events    { ({row.type: row.count for row in rescued}) }")


if __name__ == "__main__":
    sys.exit(main())
