"""Runs the migrations on one connection, one process at a time."""

from alembic import context
from sqlalchemy import create_engine, text

ONE_AT_A_TIME = 0x6861756C  # "haul"

engine = create_engine(context.config.attributes["url"])
with engine.begin() as connection:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ONE_AT_A_TIME})
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
