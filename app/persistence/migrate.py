"""Brings a database to the schema of this code."""

from __future__ import annotations

from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config

from app.persistence.sessions import driver_url


def upgrade(database_url: str, revision: str = "head") -> None:
    """Run every migration up to ``revision``; safe to call from several processes at once."""
    with as_file(files("migrations")) as folder:
        config = Config(folder / "alembic.ini")
        config.set_main_option("script_location", str(folder))
        config.attributes["url"] = driver_url(database_url)
        command.upgrade(config, revision)
