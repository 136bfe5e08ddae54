"""Whether the service can do its work: one probe a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from app.persistence.sessions import Sessions, ping

Probe = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Report:
    """The answer: HTTP status and body."""

    status: int
    body: dict[str, Any]


class Health:
    """Asks every store.

    Args:
        probes: By store name; each returns when its store answers and raises when it does not. All but Postgres may be
            away without a job being refused.
    """

    def __init__(self, sessions: Sessions, probes: Mapping[str, Probe], *, version: str) -> None:
        self.version = version
        self._probes = {"postgres": lambda: _ask(sessions), **probes}

    def report(self) -> Report:
        """Ask every store at once."""
        with ThreadPoolExecutor(len(self._probes)) as pool:
            checks = dict(zip(self._probes, pool.map(_verdict, self._probes.values()), strict=True))
        status = "ok" if set(checks.values()) == {"ok"} else "degraded"
        if checks["postgres"] != "ok":
            return Report(503, {"status": "unavailable", "version": self.version, "checks": checks})
        return Report(200, {"status": status, "version": self.version, "checks": checks})


def _ask(sessions: Sessions) -> None:
    with sessions.begin() as session:
        ping(session)


def _verdict(probe: Probe) -> str:
    try:
        probe()
    except Exception as error:  # noqa: BLE001 - whatever keeps a store from answering is the answer
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"
    return "ok"
