"""Every process of an installation; what died is started again, as a supervisor does."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from app.runtime.stores import Stores
from tests.faults.cluster import Cluster, Part

TYPICAL_WORKERS: Final = (("data", "prefork", 2), ("small", "solo", 1), ("http", "threads", 2))
MAX_RESCUES: Final = 25
_ROOT: Final = Path(__file__).parents[3]
_PACKAGE: Final = Path(__file__).parent / "package"
"""As if it were installed: its entry points are found here."""


class Site:
    """Two engines, the web, beat and a worker for every queue, on stores of their own."""

    def __init__(self, stores: Stores, folder: Path, *, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.stores = stores
        self.heard = folder / "heard.txt"
        self.cluster = Cluster(
            stores,
            folder,
            HAULIER_PORT=str(port),
            HAULIER_WEB_PROCESSES="2",
            HAULIER_WEB_THREADS="8",
            HAULIER_MAX_RESCUES=str(MAX_RESCUES),
            HAULIER_ALLOW_PRIVATE_HOSTS="127.0.0.0/8",
            HAULIER_OUTGOING_PORTS=str(port),
            PYTHONPATH=os.pathsep.join([str(_ROOT), str(_PACKAGE)]),
            CHAOS_HEARD=str(self.heard),
        )
        self.restarts: Counter[str] = Counter()
        self._starts: dict[str, Callable[[], Part]] = {
            "engine": self.cluster.start_engine,
            "engine2": lambda: self.cluster.start_engine("engine2"),
            "web": self.cluster.start_web,
            "beat": self.cluster.start_beat,
            **{name: self._worker(name, pool, slots) for name, pool, slots in TYPICAL_WORKERS},
        }
        self.parts: dict[str, Part] = {name: start() for name, start in self._starts.items()}

    def _worker(self, name: str, pool: str, slots: int) -> Callable[[], Part]:
        return lambda: self.cluster.launch_worker(name, queue=name, pool=pool, slots=slots)

    def revive(self) -> None:
        """Start again what is dead."""
        for name, part in self.parts.items():
            if not part.is_alive:
                part.end()
                self.parts[name] = self._starts[name]()
                self.restarts[name] += 1
