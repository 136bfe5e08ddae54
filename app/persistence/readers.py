"""Statements on the roles that may only read: one a tenant, which sees that tenant's tables and nothing else."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

# Since 16 who makes a role may grant it to others, and must to itself.
_RIGHT: Final = "CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END"
_UNREAD: Final = """
    FROM pg_class AS c WHERE c.relnamespace = CAST(:schema AS regnamespace) AND c.relkind IN ('r', 'p')
    AND NOT has_table_privilege(CAST(:role AS name), c.oid, 'SELECT')
    """


def name_of(session: Session, tenant: str) -> str:
    """The role's name: roles belong to the whole cluster, so the database's number is in it."""
    oid = session.execute(text("SELECT oid FROM pg_database WHERE datname = current_database()")).scalar_one()
    return f"haulier_r{oid}_{tenant}"


def is_ready(session: Session, role: str, schema: str) -> bool:
    """Whether there is the role, we may become it, and it reads every table of ``schema``."""
    # The order in which AND looks at its sides is Postgres's own: of a role that is not there nothing is asked.
    found = session.execute(
        text(
            f"""
            SELECT CASE WHEN pg_has_role(rolname, {_RIGHT}) AND has_schema_privilege(rolname, :schema, 'USAGE')
                THEN NOT EXISTS (SELECT {_UNREAD}) ELSE false END
            FROM pg_roles WHERE rolname = :role
            """
        ),
        {"role": role, "schema": schema},
    )
    return bool(found.scalar_one_or_none())


def prepare(session: Session, role: str, schema: str) -> None:
    """Make the role if it is missing and have it read every table of ``schema``, those to come too.

    The caller holds the schema's lock. Both names come from a checked tenant's.

    Raises:
        ProgrammingError: Who we are may not make roles, or not grant this one.
    """
    known = session.execute(text("SELECT count(*) FROM pg_roles WHERE rolname = :role"), {"role": role}).scalar_one()
    if not known:
        session.execute(text(f'CREATE ROLE "{role}" NOLOGIN'))
    if not _may_become(session, role):
        session.execute(text(f'GRANT "{role}" TO CURRENT_USER'))
    sees = session.execute(
        text("SELECT has_schema_privilege(:role, :schema, 'USAGE')"), {"role": role, "schema": schema}
    ).scalar_one()
    if not sees:
        session.execute(text(f'GRANT USAGE ON SCHEMA "{schema}" TO "{role}"'))
        session.execute(text(f'ALTER DEFAULT PRIVILEGES IN SCHEMA "{schema}" GRANT SELECT ON TABLES TO "{role}"'))
    for table in _unread(session, role, schema):
        session.execute(text(f'GRANT SELECT ON TABLE "{schema}"."{table}" TO "{role}"'))


def _may_become(session: Session, role: str) -> bool:
    return bool(
        session.execute(text(f"SELECT pg_has_role(CAST(:role AS name), {_RIGHT})"), {"role": role}).scalar_one()
    )


def _unread(session: Session, role: str, schema: str) -> list[str]:
    rows = session.execute(text(f"SELECT c.relname {_UNREAD} ORDER BY 1"), {"role": role, "schema": schema})
    return [row.relname for row in rows]
