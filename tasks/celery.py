"""The Celery app (``celery -A tasks``): configuration, and what happens when a worker starts and ends."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from billiard import active_children
from celery import Celery, signals
from celery.exceptions import SecurityWarning, WorkerLostError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.bootstrap import worker_stores
from app.broker.transport import install as install_transport
from app.domain.job_types import discover
from app.domain.plugins import PluginError
from app.persistence import queues, workers
from app.persistence.sessions import SingleStatements, make_sessions, open_engine
from app.telemetry.logs import set_up_logging
from beat_schedule import BEAT_SCHEDULE
from config.celery import QUEUES, celery_config
from config.memory import settle_in
from config.process import settings
from tasks.base import JobTask
from tasks.growth import follow_wanted_slots
from tasks.process import WorkerProcess, enter, process
from tasks.slot import HOST, Heart

log = logging.getLogger(__name__)

T = TypeVar("T")

# Celery warns of root because a pickled message could run code; these workers take JSON alone.
warnings.filterwarnings("ignore", category=SecurityWarning)

install_transport()
app = Celery("haulier", include=["tasks.work", "tasks.housekeeping"])
app.config_from_object(celery_config(settings()))
app.conf.beat_schedule = BEAT_SCHEDULE
_pool: dict[str, Any] = {}


@signals.setup_logging.connect
def _logging(**_: Any) -> None:
    set_up_logging(settings())


@signals.worker_init.connect
def _remember_pool(sender: Any, **_: Any) -> None:
    serves = [name for name in sender.app.amqp.queues.consume_from if name in QUEUES]
    if len(serves) != 1:
        raise SystemExit(f"a worker serves one queue: start it with -Q and one of {', '.join(QUEUES)}, got {serves}")
    try:
        discover(settings().job_types_package)
    except PluginError as error:
        # Here, because Celery goes on when a later step fails, and its children would be started for ever.
        raise SystemExit(str(error)) from None
    _pool.update(
        queue=serves[0], name=sender.hostname, concurrency=sender.concurrency or 1, kind=sender.pool_cls.__module__
    )


def _has_children() -> bool:
    return "prefork" in str(_pool.get("kind"))


@signals.worker_process_init.connect
def _child_starts(**_: Any) -> None:
    if _has_children():
        _enter(slots=1, may_kill=True)


def _wanted_slots() -> int | None:
    return _told(lambda session: queues.wanted_slots(session, _pool["queue"]))


@signals.worker_ready.connect
def _worker_ready(sender: Any, **_: Any) -> None:
    if _has_children():
        follow_wanted_slots(app, sender.pool, _wanted_slots, worker=_pool["name"])
    else:
        _enter(slots=_pool["concurrency"] if "thread" in _pool["kind"] else 1, may_kill=False)


def _enter(*, slots: int, may_kill: bool) -> None:
    stores = worker_stores(settings())
    JobTask.registry = stores.registry
    heart = Heart(
        settings(),
        stores.objects,
        queue_name=_pool["queue"],
        process=_pool["name"],
        slots=slots,
        may_kill=may_kill,
    )
    enter(WorkerProcess(heart=heart, bell=stores.bell, registry=stores.registry))
    settle_in()
    heart.start()
    stores.bell.ring_engine()


@signals.worker_process_shutdown.connect
def _child_ends(**_: Any) -> None:
    process().heart.stop()


@signals.worker_shutdown.connect
def _worker_ends(**_: Any) -> None:
    if not _has_children():
        process().heart.stop()


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    """Jobs stop at their next checkpoint and go back uncounted; children hear of it through their heartbeat.

    A second signal ends the worker at once; the engine gives its jobs back when their leases lapse.
    """
    if _pool.get("draining"):
        _leave_at_once()
    _pool["draining"] = True
    _told(lambda session: workers.drain(session, host=HOST, pid=os.getpid()))
    if not _has_children():
        process().heart.drain()


def _leave_at_once() -> NoReturn:
    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
    os._exit(128 + signal.SIGTERM)


@signals.task_failure.connect
def _child_died(exception: BaseException | None = None, **_: Any) -> None:
    """Runs in the main process when a pool's child is gone: its lease ends now, so that its job is not waited for."""
    if isinstance(exception, WorkerLostError):
        _told(_expire_dead_children)


def _expire_dead_children(session: Session) -> None:
    known = workers.children(session, host=HOST, parent_pid=os.getpid())
    dead = [pid for pid in known if not _is_alive(pid)]
    if dead and workers.expire(session, host=HOST, parent_pid=os.getpid(), pids=dead):
        log.warning("slot.child_died", extra={"pids": dead})


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123 - a virtual file
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _told(ask: Callable[[Session], T]) -> T | None:
    """What Postgres answers; ``None`` when it is away."""
    engine = open_engine(
        settings().database_url.get_secret_value(), application_name=f"haulier worker {_pool.get('name')}", pool_size=1
    )
    single = SingleStatements(make_sessions(engine))
    try:
        with single.begin() as session:
            return ask(session)
    except SQLAlchemyError as error:
        log.warning("worker.not_told", extra={"error": str(error)})
        return None
    finally:
        single.dispose()
