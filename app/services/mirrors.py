"""Which tables have a search mirror: those that were imported into, or mirrored by hand, while one is configured."""

from __future__ import annotations

from uuid import uuid4

from app.dataplane.mirror import recording
from app.dataplane.mirror.documents import alias_of
from app.dataplane.postgres_errors import retried
from app.domain.tables import Table
from app.persistence import mirrors
from app.persistence import tables as catalogue
from app.persistence.sessions import Sessions
from config.settings import Settings


class Mirrors:
    """The mirrors of every tenant; without ``HAULIER_MIRROR_URL`` there is none."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self._sessions = sessions
        self._settings = settings

    def begin(self, tenant: str, table: Table) -> None:
        """Have what is written to a table from now on noted for its mirror, if there is a server and it is not yet.

        Raises:
            TransientError: Somebody kept the table locked.
        """
        if self._settings.mirror_url is None:
            return
        with self._sessions.begin() as session:
            mirror = mirrors.find(session, tenant, table.name)
        if mirror is None or mirror.is_dropped:
            retried(lambda: self._begin(tenant, table), again=_go_on, what=f"the mirror of {table.name}")

    def _begin(self, tenant: str, table: Table) -> None:
        with self._sessions.begin() as session:
            catalogue.lock(session, tenant, table.name)
            mirror = mirrors.find(session, tenant, table.name)
            if mirror is None or mirror.is_dropped:
                filled = recording.begin(session, tenant, table)
                index = f"{alias_of(self._settings.mirror_prefix, tenant, table.name)}-{uuid4().hex}"
                mirrors.add(session, tenant, table.name, index, rebuild_wanted=filled)

    def work(self) -> list[tuple[str, str, bool]]:
        """Tenant and table of every mirror with something to do, and whether it is to be built anew.

        Without a server nothing is noted any more: writes to tables cost again what they did before.
        """
        with self._sessions.begin() as session:
            if self._settings.mirror_url is not None:
                return mirrors.with_work(session)
            known = mirrors.all_of(session)
        for mirror in known:
            with self._sessions.begin() as session:
                if not mirror.is_dropped:
                    recording.end(session, mirror.tenant, mirror.table)
                mirrors.forget(session, mirror)
        return []


def _go_on() -> None:
    """Nothing stops this but its attempts."""
