"""Brings a database to the schema of this code."""

from __future__ import annotations

from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config

from app.domain.clock import SystemClock
from app.persistence import partitions
from app.persistence.sessions import driver_url, make_sessions, open_engine


def upgrade(database_url: str) -> None:
    """Run every migration and make the partitions of the coming weeks; safe to call from several processes at once."""
    with as_file(files("migrations")) as folder:
        config = Config(folder / "alembic.ini")
        config.set_main_option("script_location", str(folder))
        config.attributes["url"] = driver_url(database_url)
        command.upgrade(config, "head")
    engine = open_engine(database_url, application_name="haulier db", pool_size=1)
    with make_sessions(engine).begin() as session:
        partitions.prepare(session, now=SystemClock().now())
    engine.dispose()
