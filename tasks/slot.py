"""Worker slots: their lease and heartbeat, the jobs they hold, and the end of a job that will not stop.

A process has one heart. It renews the leases of all the process's slots every quarter of the lease, hears in the
same round trip what the slots' jobs are asked to do, and passes it on. A slot that the engine gave up for lost is
replaced by a new one; what it held is told that its fence is gone.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.domain.clock import SystemClock
from app.domain.errors import FenceLost, JobCancelled, JobError, JobPaused, TransientError
from app.domain.job_types import OWN_PROCESS_QUEUE
from app.domain.jobs import Job
from app.domain.portions import Portion
from app.domain.ports import ObjectStore
from app.persistence import workers
from app.persistence.sessions import SingleStatements, make_sessions, open_engine
from app.persistence.workers import Held, application_name
from app.services.runs import Runs
from config.settings import Settings
from tasks.context import HandBack, RunContext
from tasks.meter import Tally

log = logging.getLogger(__name__)

HOST: Final = socket.gethostname()
_CLOCK: Final = SystemClock()
_LOOK_EVERY_S: Final = 1.0
"""Between two looks at whether a held job is to stop; a beat, which looks too, is rarer."""
_DRAIN_GRACE_S: Final = 20.0
"""For jobs of a worker that shuts down, at most: it is to be gone within half a minute."""
_SLOT_CONNECTIONS: Final = 12
"""At most: eight lanes of an import, and what reads and reports beside them."""


class Slot:
    """One place in which this process runs a job, with connections of its own."""

    def __init__(
        self, settings: Settings, objects: ObjectStore, queue_name: str, process: str, *, may_kill: bool = False
    ) -> None:
        self.settings = settings
        self.may_kill = may_kill
        self.objects = objects
        self.queue = queue_name
        self.process = process
        self.holds: dict[UUID, RunContext] = {}
        self.portion = Portion()
        self._database = Tally()
        self._connect()

    def _connect(self) -> None:
        self.id = uuid4()
        self.engine: Engine = open_engine(
            self.settings.database_url.get_secret_value(),
            application_name=application_name(self.id),
            pool_size=_SLOT_CONNECTIONS,
            worker=True,
            spent=self._database.add,
        )
        self.sessions = make_sessions(self.engine)
        self.single = SingleStatements(self.sessions)
        self.runs = Runs(self.sessions)

    @property
    def record(self) -> workers.Slot:
        """The slot as it is registered."""
        return workers.Slot(self.id, self.queue, HOST, self.process, os.getpid(), os.getppid(), self.may_kill)

    def lost(self) -> None:
        """The engine gave this slot up: what it holds must stop without a word, and it starts again as another."""
        log.warning("slot.lost", extra={"slot": str(self.id)})
        for context in self.holds.values():
            context.stop(FenceLost(f"the slot's lease lapsed while it held job {context.id}"))
        self._connect()

    def hold(self, job: Job) -> RunContext:
        """Keep a claimed job in sight of the heart, until ``let_go``."""
        context = RunContext(job, settings=self.settings, sessions=self.sessions, objects=self.objects, clock=_CLOCK)
        if self.queue == OWN_PROCESS_QUEUE:
            context.meter({"database_s": self._database.total_s, "s3_s": self.objects.spent_s})
        self.holds[job.id] = context
        return context

    def let_go(self, job: Job) -> None:
        """The job's end is written, or another's to write."""
        self.holds.pop(job.id, None)


class Heart:
    """Keeps this process's slots alive.

    Args:
        slots: How many jobs the process runs at once.
        may_kill: Whether the process is one job's own (a pool child), so that killing it ends only that job.
    """

    def __init__(
        self,
        settings: Settings,
        objects: ObjectStore,
        *,
        queue_name: str,
        process: str,
        slots: int,
        may_kill: bool,
    ) -> None:
        self._settings = settings
        self._may_kill = may_kill
        engine = open_engine(
            settings.database_url.get_secret_value(), application_name=f"haulier heart {process}", pool_size=2
        )
        # Never within a transaction: a process that is stopped there would keep its slots locked, and its jobs.
        self._single = SingleStatements(make_sessions(engine))
        self._slots = [Slot(settings, objects, queue_name, process, may_kill=may_kill) for _ in range(slots)]
        self._idle: queue.LifoQueue[Slot] = queue.LifoQueue()
        self._strangers: set[tuple[UUID, int]] = set()
        self._kill_at: dict[tuple[UUID, int], float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def start(self) -> None:
        """Begin to register the slots and to beat; a bell that comes before Postgres does waits for its slot."""
        self._thread.start()

    def stop(self) -> None:
        """Retire the slots. What they still hold is left to the engine."""
        self._stopped.set()
        try:
            with self._single.begin() as session:
                workers.retire(session, [slot.id for slot in self._slots])
        except SQLAlchemyError as error:
            log.warning("slot.not_retired", extra={"error": str(error)})

    def drain(self) -> None:
        """Ask every job of this process to hand back."""
        for slot in self._slots:
            for context in list(slot.holds.values()):
                context.stop(HandBack())

    def look(self, slot: Slot) -> None:
        """Ask now, instead of at the next beat, whether the slot's jobs are to stop."""
        try:
            self._look([slot])
        except SQLAlchemyError as error:
            log.warning("heart.missed", extra={"error": str(error)})

    def _look(self, slots: Sequence[Slot]) -> None:
        by_id = {slot.id: slot for slot in slots}
        with self._single.begin() as session:
            asked = workers.asked(session, list(by_id))
        for hold in asked:
            self._tell(by_id[hold.slot], hold)

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """An idle slot of this process; there is one for every bell that Celery lets in."""
        slot = self._idle.get()
        try:
            yield slot
        finally:
            self._idle.put(slot)

    def _register(self, slot: Slot) -> None:
        while not self._stopped.is_set():
            try:
                with self._single.begin() as session:
                    workers.register(session, slot.record, lease_s=self._settings.lease_s)
                return
            except SQLAlchemyError as error:
                log.warning("slot.not_registered", extra={"error": str(error)})
                self._stopped.wait(1.0)

    def _run(self) -> None:
        for slot in self._slots:
            self._register(slot)
            self._idle.put(slot)
        every_s = self._settings.lease_s / 4
        beat_at = monotonic() + every_s
        while not self._stopped.wait(min(every_s, _LOOK_EVERY_S)):
            try:
                if monotonic() >= beat_at:
                    beat_at = monotonic() + every_s
                    self._beat()
                elif busy := [slot for slot in self._slots if slot.holds]:
                    self._look(busy)
                self._end_outgrown()
            except (SQLAlchemyError, MemoryError) as error:
                log.warning("heart.missed", extra={"error": str(error)})

    def _end_outgrown(self) -> None:
        """Kill a job that has more memory than it asked for, if its process is its own."""
        for slot in self._slots if self._may_kill else ():
            for context in [context for context in list(slot.holds.values()) if context.outgrown()]:
                self._kill(slot, context, context.out_of_memory())

    def _beat(self) -> None:
        by_id = {slot.id: slot for slot in self._slots}
        with self._single.begin() as session:
            alive, held = workers.beat(session, list(by_id), lease_s=self._settings.lease_s)
        for slot_id, slot in by_id.items():
            if slot_id not in alive:
                slot.lost()
                self._register(slot)
        strangers = {(hold.job_id, hold.fence) for hold in held if not self._tell(by_id[hold.slot], hold)}
        for hold in held:
            if (hold.job_id, hold.fence) in strangers & self._strangers:
                self._give_back(by_id[hold.slot], hold)
        self._strangers = strangers

    def _tell(self, slot: Slot, hold: Held) -> bool:
        """Pass on what a job is asked to do; whether this process knows that it holds the job."""
        context = slot.holds.get(hold.job_id)
        if context is None or context.job.fence != hold.fence:
            return False
        why = self._why_stop(hold)
        if why is not None and hold.terminate and self._may_kill:
            self._kill(slot, context, why)
        elif why is not None:
            context.stop(why)
            self._kill_later(slot, context, why, leaves=hold.draining)
        return True

    def _why_stop(self, hold: Held) -> Exception | None:
        if hold.cancel_requested:
            return JobCancelled(hold.cancel_reason or "user", terminated=hold.terminate)
        if hold.deadline_passed:
            return JobCancelled("timeout")
        if hold.paused:
            return JobPaused("paused on request")
        if hold.draining:
            return HandBack()
        return self._too_long(hold)

    def _too_long(self, hold: Held) -> TransientError | None:
        timeout_s = hold.attempt_timeout_s or self._settings.default_attempt_timeout_s
        if hold.attempt_s > timeout_s:
            return TransientError(f"the attempt ran longer than its {timeout_s:g} s", code="job.attempt_timeout")
        if hold.silent_s > self._settings.stall_timeout_s:
            return TransientError(f"no progress for {hold.silent_s:.0f} s", code="job.stalled")
        return None

    def _give_back(self, slot: Slot, hold: Held) -> None:
        """A claim whose answer never arrived: the database says we hold the job, but nobody here runs it."""
        with self._single.begin() as session:
            found = [job for job in workers.jobs_of(session, slot.id) if job.id == hold.job_id]
        for job in found:
            slot.runs.rescue(job, "the claim's answer was lost", max_rescues=self._settings.max_rescues)

    def _kill_later(self, slot: Slot, context: RunContext, why: Exception, *, leaves: bool) -> None:
        """After the grace time, kill the job, if its process is its own or shuts down anyway."""
        key = (context.job.id, context.job.fence)
        self._kill_at = {k: at for k, at in self._kill_at.items() if k == key or k[0] in slot.holds}
        grace_s = min(self._settings.kill_grace_s, _DRAIN_GRACE_S) if leaves else self._settings.kill_grace_s
        at = self._kill_at.setdefault(key, monotonic() + grace_s)
        if (self._may_kill or leaves) and monotonic() >= at:
            self._kill(slot, context, why)

    def _kill(self, slot: Slot, context: RunContext, why: Exception) -> None:
        """End the attempt in the database and then this process; a job that ended meanwhile by itself spares it."""
        try:
            _end_for(slot.runs, context.job, why)
            with self._single.begin() as session:
                workers.retire(session, [slot.id])
        except FenceLost:
            log.info("job.fence_lost", extra={"job_id": str(context.id)})
        finally:
            if slot.holds.get(context.id) is context:
                log.error("job.killed", extra={"job_id": str(context.id), "why": str(why)})
                os.kill(os.getpid(), signal.SIGKILL)


def end_stopped(runs: Runs, context: RunContext) -> None:
    """Write the end that the reason of a stop asks for."""
    try:
        context.check()
    except (JobCancelled, JobPaused, HandBack, TransientError, FenceLost) as why:
        _end_for(runs, context.job, why)


def _end_for(runs: Runs, job: Job, why: Exception) -> None:
    match why:
        case JobCancelled(reason=reason, terminated=terminated):
            runs.cancel(job, reason, terminated=terminated)
        case JobPaused():
            runs.pause(job, why)
        case HandBack():
            runs.hand_back(job, "worker shuts down")
        case TransientError():
            runs.retry(job, why)
        case JobError():
            runs.fail(job, why)
        case FenceLost():
            log.info("job.fence_lost", extra={"job_id": str(job.id)})
