"""The engine's loop: every tick, or when it is rung, it does its duties in turn, as long as it leads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final
from uuid import UUID, uuid4

import redis
from sqlalchemy.exc import SQLAlchemyError

from app.broker.bells import ENGINE_LIST, CeleryBell, redis_client
from app.engine.admit import Memory, admit, end_overdue, forget_uses
from app.engine.fire import fire_overdue, rearm
from app.engine.fold import EVENTS_AT_ONCE, begin_families, fold, stir
from app.engine.leader import Leader, LeadLost
from app.engine.listen import Listening, find_listeners
from app.engine.rescue import rescue
from app.engine.ring import ring
from app.persistence import duties
from app.persistence.duties import Duties
from app.persistence.leaders import application_name
from app.persistence.sessions import make_sessions, open_engine, ping
from app.scheduling.redbeat import RedBeatTimer
from app.services.firing import Firing
from config.settings import Settings

log = logging.getLogger(__name__)

REARM_S: Final = 5.0
FOLD_ROUNDS: Final = 2
"""In a tick: ten thousand jobs that come at once are admitted while their first events are numbered."""
_LISTENERS_PATIENCE_S: Final = 2.0


class Engine:
    """The process that admits, rings, rescues, fires schedules and ends what is overdue."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        holder = uuid4()
        engine = open_engine(
            settings.database_url.get_secret_value(),
            application_name=application_name(holder),
            pool_size=2,
            by_index=True,
            pre_ping=True,
        )
        self._sessions = make_sessions(engine)
        self._leader = Leader(self._sessions, holder, term_s=settings.engine_term_s)
        self._bell = CeleryBell(settings)
        self._timer = RedBeatTimer(settings)
        self._listening = self._listeners(holder)
        self._firing = Firing(self._sessions, self._bell, self._timer, queue_bound=settings.job_in_queue_size)
        self._rearm_at = 0.0
        self._memory = Memory()
        self._redis = redis_client(settings, timeout_s=max(1.0, settings.engine_tick_s * 2))
        self._stopped = threading.Event()
        self._judge_leases_at = float("inf")
        self._away = True
        self._is_behind = False
        self._tick_s = min(settings.engine_tick_s, settings.ticker_interval_minutes * 60)

    def _listeners(self, holder: UUID) -> Listening:
        found = find_listeners()
        # A pool of their own, so that no duty waits for one of their connections; each thread needs one at a time.
        engine = open_engine(
            self._settings.database_url.get_secret_value(),
            application_name=application_name(holder),
            pool_size=max(1, len(found)),
            pre_ping=True,
        )
        return Listening(make_sessions(engine), found, lambda: self._leader.is_leading)

    def stop(self) -> None:
        """End the loop after the duty in hand; safe in a signal handler."""
        self._stopped.set()

    def run(self) -> None:
        """Work until ``stop``."""
        log.info("engine.started")
        self._listening.start()
        while not self._stopped.is_set():
            try:
                self._tick()
            except (SQLAlchemyError, LeadLost) as error:
                self._away = self._away or isinstance(error, SQLAlchemyError)
                log.warning("engine.duty_failed", extra={"duty": "lead", "error": str(error)})
                self._stopped.wait(0.5)
            if not self._is_behind:
                self._rest()
        self._listening.stop(patience_s=_LISTENERS_PATIENCE_S)
        self._resign()
        log.info("engine.stopped")

    def _tick(self) -> None:
        self._is_behind = False
        if self._away:
            self._greet_postgres()
        if not self._leader.leads():
            return
        settings = self._settings
        there = self._look()
        if there.rescue and monotonic() >= self._judge_leases_at:
            self._do("rescue", lambda: rescue(self._leader, max_rescues=settings.max_rescues))
        if there.fire:
            self._do("fire", lambda: fire_overdue(self._leader, self._firing))
        if there.end_overdue:
            self._do("end_overdue", lambda: end_overdue(self._leader))
        if there.fold:
            self._do("fold", self._fold)
        there = self._look()
        if there.stir:
            self._do("stir", lambda: stir(self._leader))
        if there.begin:
            self._do("begin", lambda: begin_families(self._leader))
        waits = there.stir or there.begin or there.admit
        if waits:
            self._do("admit", lambda: admit(self._leader, bound=settings.job_in_queue_size, memory=self._memory))
        if waits or there.ring:
            self._do("ring", lambda: ring(self._leader.looking, self._bell, self._redis))
        if monotonic() >= self._rearm_at:
            self._rearm_at = monotonic() + REARM_S
            self._do("rearm", lambda: rearm(self._leader, self._timer))
            self._do("forget_uses", lambda: forget_uses(self._leader))

    def _look(self) -> Duties:
        with self._leader.looking.begin() as session:
            return duties.look(session)

    def _fold(self) -> int:
        numbered = fold(self._leader, rounds=FOLD_ROUNDS)
        if numbered:
            self._listening.wake()
        self._is_behind = numbered >= EVENTS_AT_ONCE
        return numbered

    def _do(self, duty: str, work: Callable[[], int]) -> None:
        try:
            work()
        except redis.RedisError as error:
            log.warning("engine.duty_failed", extra={"duty": duty, "error": str(error)})

    def _greet_postgres(self) -> None:
        """When Postgres answers again, judge no lease for one lease: while it was away nobody could renew theirs."""
        with self._sessions.begin() as session:
            ping(session)
        self._judge_leases_at = monotonic() + self._settings.lease_s
        self._away = False

    def _rest(self) -> None:
        """Sleep a tick, or until rung."""
        try:
            self._redis.brpop([ENGINE_LIST], timeout=self._tick_s)
        except redis.RedisError:
            self._stopped.wait(self._tick_s)

    def _resign(self) -> None:
        try:
            self._leader.resign()
        except SQLAlchemyError as error:
            log.warning("engine.duty_failed", extra={"duty": "resign", "error": str(error)})
        self._bell.close()
