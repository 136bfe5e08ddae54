"""The faults, a function each; every one leaves the stores as they must be for work to go on."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import sleep
from typing import Final

import redis
from sqlalchemy.exc import DBAPIError

from tests.faults.chaos.site import TYPICAL_WORKERS, Site
from tests.faults.cluster import LEASE_S, eventually

Fault = Callable[[Site, random.Random], None]

_WORKERS: Final = tuple(name for name, _, _ in TYPICAL_WORKERS)
_ENGINES: Final = ("engine", "engine2")


def _kill(site: Site, name: str) -> None:
    site.parts[name].send(signal.SIGKILL)
    site.parts[name].wait(10)


def _kill_child(site: Site, name: str, draw: random.Random) -> None:
    """Kill a child of a process, which may just be starting itself."""

    def done() -> bool:
        site.revive()
        with suppress(FileNotFoundError, ProcessLookupError):
            if children := site.parts[name].children():
                os.kill(draw.choice(children), signal.SIGKILL)
                return True
        return False

    eventually(done, within_s=20, what=f"a child of {name}")


@contextmanager
def _stopped(site: Site, name: str) -> Iterator[None]:
    part = site.parts[name]
    part.send(signal.SIGSTOP)
    try:
        yield
    finally:
        part.send(signal.SIGCONT)


def kill_worker(site: Site, draw: random.Random) -> None:
    _kill(site, draw.choice(_WORKERS))


def kill_pool_child(site: Site, draw: random.Random) -> None:
    _kill_child(site, "data", draw)


def kill_engine(site: Site, draw: random.Random) -> None:
    _kill(site, draw.choice(_ENGINES))


def kill_both_engines(site: Site, draw: random.Random) -> None:
    for name in _ENGINES:
        _kill(site, name)


def kill_web(site: Site, draw: random.Random) -> None:
    _kill(site, "web")


def kill_web_process(site: Site, draw: random.Random) -> None:
    _kill_child(site, "web", draw)


def kill_beat(site: Site, draw: random.Random) -> None:
    _kill(site, "beat")


def end_worker(site: Site, draw: random.Random) -> None:
    site.parts[draw.choice(_WORKERS)].send_main(signal.SIGTERM)


def stop_worker(site: Site, draw: random.Random) -> None:
    with _stopped(site, draw.choice(_WORKERS)):
        sleep(LEASE_S * draw.uniform(0.5, 2))


def stop_engine(site: Site, draw: random.Random) -> None:
    with _stopped(site, draw.choice(_ENGINES)):
        sleep(draw.uniform(0.5, 4))


def flush_redis(site: Site, draw: random.Random) -> None:
    client = redis.Redis.from_url(site.stores.redis_url)
    client.flushall()
    client.close()


def restart_redis(site: Site, draw: random.Random) -> None:
    site.stores.valkey.kill()
    sleep(draw.uniform(0, 2))
    site.stores.valkey.start()


def stall_redis(site: Site, draw: random.Random) -> None:
    os.kill(site.stores.valkey.pid, signal.SIGSTOP)
    sleep(draw.uniform(0.5, 3))
    os.kill(site.stores.valkey.pid, signal.SIGCONT)


def restart_postgres(site: Site, draw: random.Random) -> None:
    site.stores.postgres.stop_immediately()
    site.stores.postgres.start()


def take_postgres_away(site: Site, draw: random.Random) -> None:
    site.stores.postgres.stop_immediately()
    sleep(draw.uniform(1, LEASE_S * 1.5))
    site.stores.postgres.start()


def terminate_backends(site: Site, draw: random.Random) -> None:
    with suppress(DBAPIError):
        site.cluster.count(
            "(SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND usename = current_user AND backend_type = 'client backend') AS t"
        )


def restart_s3(site: Site, draw: random.Random) -> None:
    site.stores.objects.kill()
    site.stores.objects.start()


def take_s3_away(site: Site, draw: random.Random) -> None:
    site.stores.objects.kill()
    sleep(draw.uniform(1, 3))
    site.stores.objects.start()


def ring_needlessly(site: Site, draw: random.Random) -> None:
    for name in _WORKERS:
        site.cluster.services.jobs._bell.ring(name, draw.randint(5, 20))


FAULTS: Final[tuple[Fault, ...]] = (
    kill_worker, kill_pool_child, kill_engine, kill_both_engines, kill_web, kill_web_process, kill_beat, end_worker,
    stop_worker, stop_engine, flush_redis, restart_redis, stall_redis, restart_postgres, take_postgres_away,
    terminate_backends, restart_s3, take_s3_away, ring_needlessly,
)  # fmt: skip


def drawn(draw: random.Random, count: int) -> list[Fault]:
    """``count`` faults: each once as far as that goes, then any, in any order."""
    chosen = draw.sample(FAULTS, min(count, len(FAULTS)))
    chosen += draw.choices(FAULTS, k=count - len(chosen))
    draw.shuffle(chosen)
    return chosen
