"""``haulier db``: the database's schema."""

from __future__ import annotations

import click

from app.cli.failures import on_the_stores
from app.persistence.migrate import upgrade as migrate
from config.process import settings


@click.group()
def db() -> None:
    """Work on the database's schema."""


@db.command()
@on_the_stores
def upgrade() -> None:
    """Bring the database to the schema of this version."""
    migrate(settings().database_url.get_secret_value())
    click.echo("the database is up to date")
