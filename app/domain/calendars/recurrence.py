"""When a schedule fires: the union of its rules in a zone, between a start and an end, spread by a jitter."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final
from zoneinfo import ZoneInfo

from app.domain.calendars.calendar import Calendar
from app.domain.calendars.cron import Cron
from app.domain.calendars.fields import FIRST_YEAR, LAST_YEAR
from app.domain.calendars.interval import Interval
from app.domain.calendars.moment import At, instant_text
from app.domain.calendars.phrases import joined
from app.domain.durations import duration_text, duration_words

Rule = Interval | Cron | Calendar | At
_KEYS: Final[dict[type, str]] = {Interval: "intervals", Cron: "cron", Calendar: "calendars", At: "at"}
_TICK: Final = timedelta(microseconds=1)
_EARLIEST: Final = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(LAST_YEAR, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """The instants at which a schedule fires; without rules there are none, and it runs on demand.

    Args:
        rules: Each instant of any of them is one fire, however many rules name it.
        timezone: IANA name; cron lines and calendars are readings of a clock there.
        start: Nothing fires before it; ``None`` for no limit.
        end: Nothing fires after it; ``None`` for no limit.
        jitter_s: How much later than its instant a fire may begin.
    """

    rules: tuple[Rule, ...] = ()
    timezone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    jitter_s: float = 0.0

    def next_after(self, after: datetime) -> datetime | None:
        """The first instant (UTC) strictly after ``after``, which is aware; ``None`` when there is none."""
        return next(self._after(after), None)

    def upcoming(self, after: datetime, count: int) -> tuple[datetime, ...]:
        """The next ``count`` instants after ``after``, or those there are."""
        return tuple(islice(self._after(after), count))

    def due_between(self, after: datetime, until: datetime, limit: int) -> tuple[datetime, ...]:
        """The first ``limit`` instants after ``after`` and up to ``until``, in order."""
        found = []
        for instant in islice(self._after(after), limit):
            if instant > until:
                break
            found.append(instant)
        return tuple(found)

    def last_between(self, after: datetime, until: datetime) -> datetime | None:
        """The last instant after ``after`` and up to ``until``, found without going through those before it."""
        last = None
        low, high = after, until
        while (following := self.next_after(low)) is not None and following <= until:
            last = low = following
            middle = low + (high - low) / 2
            beyond = self.next_after(middle)
            if beyond is not None and beyond <= until:
                last = low = beyond
            else:
                high = middle
        return last

    def begin_of(self, schedule_id: str, instant: datetime) -> datetime:
        """When the fire of ``instant`` begins: the same in every process, and always before the next instant."""
        if not self.jitter_s:
            return instant
        following = self.next_after(instant)
        bound = timedelta(seconds=self.jitter_s)
        if following is not None:
            bound = min(bound, following - instant)
        digest = hashlib.sha256(f"{schedule_id} {instant_text(instant.astimezone(UTC))}".encode()).digest()
        # In whole microseconds and by integers, so that it stays below the bound.
        return instant + bound // _TICK * int.from_bytes(digest[:8], "big") // 2**64 * _TICK

    def words(self) -> str:
        """The rules in one sentence."""
        if not self.rules:
            return "on demand"
        said = [joined([rule.words() for rule in self.rules], "and also")]
        if any(isinstance(rule, Cron | Calendar) for rule in self.rules):
            said.append(self.timezone)
        if self.start is not None:
            said.append(f"from {instant_text(self.start)} on")
        if self.end is not None:
            said.append(f"until {instant_text(self.end)}")
        if self.jitter_s:
            said.append(f"up to {duration_words(self.jitter_s)} later")
        return ", ".join(said)

    def as_json(self) -> dict[str, Any]:
        """As it is stored and shown; ``parse`` reads it back."""
        body: dict[str, Any] = {"timezone": self.timezone}
        for kind, key in _KEYS.items():
            if listed := [rule.as_json() for rule in self.rules if isinstance(rule, kind)]:
                body[key] = listed
        if self.start is not None:
            body["start"] = instant_text(self.start)
        if self.end is not None:
            body["end"] = instant_text(self.end)
        return body | ({"jitter": duration_text(self.jitter_s)} if self.jitter_s else {})

    def _after(self, after: datetime) -> Iterator[datetime]:
        """The instants after ``after`` in order, each once: the rules' own sequences merged."""
        zone = ZoneInfo(self.timezone)
        end = min(_LATEST, self.end or _LATEST)
        if after >= end:
            return
        after = max(after, max(_EARLIEST, self.start or _EARLIEST) - _TICK).astimezone(UTC)
        heads = [(first, number) for number, rule in enumerate(self.rules) if (first := rule.next_after(after, zone))]
        heapq.heapify(heads)
        last = after
        while heads:
            instant, number = heads[0]
            if instant > end:
                return
            if instant > last:
                last = instant
                yield instant
            following = self.rules[number].next_after(instant, zone)
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (following, number))
