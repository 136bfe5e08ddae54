"""An import's rows go to the mirror while its lanes write the next: a batch takes as long as the slower store."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from app.dataplane.context import ImportContext
from app.dataplane.mirror.feeding import Feed, counters
from app.dataplane.mirror.server import SearchServer
from app.domain.errors import JobError
from app.domain.job_types import Result
from app.domain.jobs import Outcome
from app.domain.tables import Table
from app.persistence import jobs

_POLL_S: Final = 0.1


class _Stopped(Exception):  # noqa: N818 - it is a signal, caught where the thread ends
    """The import is over before its rows are in the mirror."""


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What became of an import's rows in the mirror, by table; empty where there is none."""

    tables: dict[str, dict[str, Any]]

    def told(self, result: Result) -> Result:
        """The result with this in it; ``partial`` when a document was refused or rows are not there yet."""
        if not self.tables:
            return result
        behind = sum(one["behind"] for one in self.tables.values())
        refused = sum(one["refused"] for one in self.tables.values())
        said = [
            *([f"the mirror refused {refused}"] if refused else []),
            *([f"{behind} are still to come to the mirror"] if behind else []),
        ]
        return replace(
            result,
            data={**result.data, "mirror": self.tables},
            message="; ".join((result.message or "", *said)),
            outcome=Outcome.PARTIAL if said else result.outcome,
        )


class Follower:
    """A thread that brings what a job writes to the mirror, from the entry of the context on.

    A mirror that is away or refuses everything does not fail the import, which goes on without it: the rows wait, and
    are written by ``mirror_changes`` when the job is over.
    """

    def __init__(self, context: ImportContext, tables: Sequence[Table]) -> None:
        self._context = context
        self._stop = threading.Event()
        self._finish = threading.Event()
        self._reason: JobError | None = None
        self._error: BaseException | None = None
        self._feeds: list[Feed] = []
        self._thread: threading.Thread | None = None
        if context.settings.mirror_url is not None:
            server = SearchServer(context.settings, context, self._wait)
            self._feeds = [Feed(context, server, table) for table in tables]

    def __enter__(self) -> Follower:
        if self._feeds:
            self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._finish.set()
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> Mirrored:
        """Wait until all that the job wrote is in the mirror, or cannot come there now.

        Raises:
            FenceLost: Another worker has the job; and what it was asked to stop for.
        """
        if self._thread is None:
            return Mirrored({})
        self._finish.set()
        while self._thread.is_alive():
            self._thread.join(_POLL_S)
            self._context.tell()
        if self._error is not None:
            raise self._error
        return Mirrored({feed.table.name: self._told(feed) for feed in self._feeds})

    def _told(self, feed: Feed) -> dict[str, Any]:
        with self._context.sessions.begin() as session:
            counts = jobs.get(session, self._context.job.tenant, self._context.id).counters
        mirrored, refused = (counts.get(name, 0) for name in counters(feed.table.name))
        behind = feed.waiting()
        reason = {"reason": self._reason.detail} if behind and self._reason else {}
        return {"index": feed.alias, "mirrored": mirrored, "refused": refused, "behind": behind, **reason}

    def _run(self) -> None:
        try:
            for feed in self._feeds:
                feed.prepare()
            self._follow()
        except _Stopped:
            return
        except JobError as error:
            self._reason = error
        except BaseException as error:  # noqa: BLE001 - raised where the import waits for this thread
            self._error = error

    def _follow(self) -> None:
        while not self._stop.is_set():
            # Looked at first: what is found afterwards is all there is.
            is_last = self._finish.is_set()
            found = [feed.once(of=self._context.id) for feed in self._feeds]
            if any(found):
                continue
            if is_last:
                return
            self._finish.wait(_POLL_S)

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise _Stopped
        self._context.check()
