"""Listening: events are handed to the listeners of other packages, each in a thread of its own.

What a listener does or how long it takes holds up no duty of the engine. It hears events while this engine leads, and
how far it has heard is written after it has: a listener that was broken off hears some again, and misses none.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Final

from app.domain.listeners import ENTRY_POINT_GROUP, HeardEvent, Listener
from app.domain.plugins import PluginError, load_one, said
from app.domain.retry import RetryPolicy
from app.persistence import cursors
from app.persistence.cursors import Unheard
from app.persistence.sessions import Sessions

log = logging.getLogger(__name__)

EVENTS_AT_ONCE: Final = 100
LOOK_EVERY_S: Final = 1.0
TRIES: Final = RetryPolicy(maximum_attempts=8, initial_interval_s=0.5, maximum_interval_s=30.0, jitter=False)
"""Of one event; the next one waits meanwhile. Together about a minute."""


def find_listeners() -> list[Listener]:
    """The listeners of all packages, by entry points.

    One that cannot be loaded is left out and logged: the engine is needed by every job, and what the listener has not
    heard waits for it behind its cursor.
    """
    found: dict[str, Listener] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            listener = load_one(point, Listener)
            if listener.name in found:
                raise PluginError(f"{said(point)}: there is another listener called {listener.name!r}")
            found[listener.name] = listener
        except PluginError as error:
            log.exception("listener.not_loaded", extra={"error": str(error)})
    return list(found.values())


class Listening:
    """The threads of an engine's listeners.

    Args:
        leads: Whether this engine leads; only then is anything heard.
    """

    def __init__(self, sessions: Sessions, listeners: Sequence[Listener], leads: Callable[[], bool]) -> None:
        self._hearings = [Hearing(sessions, listener, leads) for listener in listeners]
        self._threads = [
            threading.Thread(target=hearing.run, name=f"listener {hearing.name}", daemon=True)
            for hearing in self._hearings
        ]

    def start(self) -> None:
        """Begin to hear."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """There is news."""
        for hearing in self._hearings:
            hearing.wake()

    def stop(self, *, patience_s: float) -> None:
        """Hear no further event; one that a listener is at after that time will be heard again."""
        for hearing in self._hearings:
            hearing.stop()
        for thread in self._threads:
            thread.join(patience_s)


class Hearing:
    """One listener and how far it is."""

    def __init__(self, sessions: Sessions, listener: Listener, leads: Callable[[], bool]) -> None:
        self._sessions = sessions
        self._listener = listener
        self._leads = leads
        self._news = threading.Event()
        self._stopped = threading.Event()
        self._begun = False

    @property
    def name(self) -> str:
        """The listener's."""
        return self._listener.name

    def wake(self) -> None:
        """Look for news now."""
        self._news.set()

    def stop(self) -> None:
        """End ``run`` after the event in hand."""
        self._stopped.set()
        self._news.set()

    def run(self) -> None:
        """Hear until ``stop``."""
        while not self._stopped.is_set():
            self._news.clear()
            try:
                if self._goes_on():
                    self.hear()
            except Exception:
                log.exception("listener.broke_off", extra={"listener": self.name})
            self._news.wait(LOOK_EVERY_S)

    def hear(self) -> int:
        """Hand on what is new; how many events that were."""
        with self._sessions.begin() as session:
            if not self._begun:
                cursors.begin(session, self.name)
            news = cursors.unheard(session, self.name)
        self._begun = True
        return sum(self._hear_tenant(one) for one in news)

    def _hear_tenant(self, news: Unheard) -> int:
        """Hear a tenant's news page by page, as long as the cursor is ours to move."""
        heard = 0
        while news.position < news.last and self._goes_on():
            with self._sessions.begin() as session:
                page = cursors.events(
                    session,
                    news,
                    types=self._listener.events,
                    job_types=self._listener.job_types,
                    limit=EVENTS_AT_ONCE,
                )
            done = self._hand_on(page)
            if done == len(page) < EVENTS_AT_ONCE:
                position = news.last
            else:
                position = page[done - 1].seq or 0 if done else news.position
            if position == news.position or not self._advance(news, position):
                break
            heard += done
            news = news._replace(position=position)
        return heard

    def _advance(self, news: Unheard, position: int) -> bool:
        with self._sessions.begin() as session:
            return cursors.advance(session, self.name, news, position)

    def _hand_on(self, page: Sequence[HeardEvent]) -> int:
        """Hand on events in order; how many are done with."""
        for done, event in enumerate(page):
            if not self._goes_on() or not self._handled(event):
                return done
        return len(page)

    def _handled(self, event: HeardEvent) -> bool:
        """Whether the listener took an event, or never will; False when it was broken off between two tries."""
        failures = 0
        while True:
            try:
                if self._listener.wants is None or self._listener.wants(event):
                    self._listener.handle(event)
                return True
            except (Exception, SystemExit) as error:
                failures += 1
                facts = {"listener": self.name, "job_id": str(event.job_id), "seq": event.seq, "tenant": event.tenant}
                wait_s = TRIES.next_wait_s(failures)
                if wait_s is None:
                    log.exception("listener.skipped", extra={**facts, "tries": failures})
                    return True
                log.warning("listener.failed", extra={**facts, "error": f"{type(error).__name__}: {error}"})
            if self._stopped.wait(wait_s) or not self._leads():
                return False

    def _goes_on(self) -> bool:
        return self._leads() and not self._stopped.is_set()
