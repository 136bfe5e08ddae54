"""Statements on cursors: how far a listener has heard the events of each tenant."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.listeners import HeardEvent
from app.persistence.events import read_in_order, values


class Unheard(NamedTuple):
    """Events above ``position`` up to ``last`` that a listener has not heard yet."""

    tenant: str
    position: int
    last: int


def begin(session: Session, name: str) -> None:
    """Have a listener that is new hear what happens from now on; one that is known goes on where it stands."""
    session.execute(
        text(
            """
            INSERT INTO cursors (name, tenant, position)
            SELECT :name, t.name, coalesce(c.last, 0)
            FROM tenants AS t LEFT JOIN event_counters AS c ON c.tenant = t.name
            WHERE NOT EXISTS (SELECT FROM cursors WHERE name = :name)
            ON CONFLICT DO NOTHING
            """
        ),
        {"name": name},
    )


def unheard(session: Session, name: str) -> list[Unheard]:
    """The tenants that have news for a listener; of one that came later, it hears everything."""
    rows = session.execute(
        text(
            """
            SELECT n.tenant, coalesce(c.position, 0) AS position, n.last
            FROM event_counters AS n LEFT JOIN cursors AS c ON c.name = :name AND c.tenant = n.tenant
            WHERE n.last > coalesce(c.position, 0) ORDER BY n.tenant
            """
        ),
        {"name": name},
    )
    return [Unheard(row.tenant, int(row.position), int(row.last)) for row in rows]


_EVENTS: Final = """
    SELECT e.job_id, e.number, e.type, e.at, e.actor, e.source, e.target, e.fence, e.data, n.seq, e.tenant,
           j.type AS job_type
    FROM numbered_events AS n JOIN job_events AS e ON e.job_id = n.job_id AND e.number = n.number
    JOIN jobs AS j ON j.id = e.job_id
    WHERE n.tenant = :tenant AND n.last_seq > :position AND n.seq > :position AND n.seq <= :last {narrower}
    ORDER BY n.last_seq, n.seq LIMIT :limit
"""


def events(
    session: Session, news: Unheard, *, types: Collection[str], job_types: Collection[str], limit: int
) -> list[HeardEvent]:
    """Of the events of ``news`` the first ones of these types (none: all) of jobs of these types, in order."""
    read_in_order(session)
    narrower = ("AND e.type = ANY(:types) " if types else "") + ("AND j.type = ANY(:job_types)" if job_types else "")
    rows = session.execute(
        text(_EVENTS.format(narrower=narrower)),
        {**news._asdict(), "types": sorted(types), "job_types": sorted(job_types), "limit": limit},
    )
    return [HeardEvent(**values(row)) for row in rows]


def advance(session: Session, name: str, news: Unheard, position: int) -> bool:
    """Remember that a listener has heard up to ``position``; False when another engine has moved it since."""
    row = session.execute(
        text(
            """
            INSERT INTO cursors AS c (name, tenant, position) VALUES (:name, :tenant, :to)
            ON CONFLICT (name, tenant) DO UPDATE SET position = excluded.position WHERE c.position = :from
            RETURNING position
            """
        ),
        {"name": name, "tenant": news.tenant, "to": position, "from": news.position},
    ).one_or_none()
    return row is not None
