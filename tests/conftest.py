"""Real servers for the tests: PostgreSQL, Valkey and S3, started at the first test that asks and removed at the end."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import hypothesis
import pytest
from sqlalchemy import Engine, text

from app.domain.ports import ObjectStore
from app.persistence.migrate import upgrade
from app.persistence.sessions import Sessions, make_sessions, open_engine
from app.runtime.postgres import THROW_AWAY
from app.runtime.stores import Stores
from app.storage.s3 import S3Store
from config.settings import Settings

# A machine that is busy with other things is no fault of a test.
hypothesis.settings.register_profile(
    "haulier",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("haulier")

BUCKET = "haulier-test"
ANOTHER_POSTGRES = "HAULIER_TEST_POSTGRES_BIN"

# Rows that the migrations put in; every test finds them as they were.
_KEEP_SEED = """
DO $$
DECLARE name text; filled boolean;
BEGIN
    CREATE SCHEMA seed;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', name) INTO filled;
        IF filled THEN
            EXECUTE format('CREATE TABLE seed.%I AS TABLE public.%I', name, name);
        END IF;
    END LOOP;
END $$
"""

_BACK_TO_SEED = """
DO $$
DECLARE name text; dirty text[];
BEGIN
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname ~ '^t_' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
    -- Of what is partitioned only the parts that were used: a file for each index of each part is made anew.
    SELECT coalesce(array_agg(format('public.%I', relname)), '{}') INTO dirty FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
    AND pg_relation_size(oid) > 0;
    IF dirty <> '{}' THEN
        EXECUTE 'TRUNCATE ' || array_to_string(dirty, ', ') || ' RESTART IDENTITY CASCADE';
    END IF;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'seed' LOOP
        EXECUTE format('INSERT INTO public.%I SELECT * FROM seed.%I', name, name);
    END LOOP;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
        EXECUTE format('ALTER SEQUENCE public.%I RESTART', name);
    END LOOP;
END $$
"""


def pytest_configure(config: pytest.Config) -> None:
    """Let a test run that is told to stop (a time limit of CI, say) remove its servers like one that is interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def postgres_binaries() -> Path | None:
    """The PostgreSQL that the tests run on: the folder in HAULIER_TEST_POSTGRES_BIN, else the bundled one."""
    chosen = os.environ.get(ANOTHER_POSTGRES)
    return Path(chosen) if chosen else None


@pytest.fixture(scope="session")
def stores(postgres_binaries: Path | None) -> Iterator[Stores]:
    """PostgreSQL (without fsync), Valkey and S3 on free ports, shared by all tests."""
    folder = _folder_open_to_all()
    stores = Stores(
        folder,
        postgres_binaries=postgres_binaries,
        postgres_settings=THROW_AWAY,
        buckets=(BUCKET,),
        throw_away=True,
    )
    stores.start()
    yield stores
    stores.remove()


@pytest.fixture
def durable_stores(postgres_binaries: Path | None) -> Iterator[Stores]:
    """Stores of a test's own, with every safety on, for tests that kill and restart them."""
    stores = Stores(
        _folder_open_to_all(),
        postgres_binaries=postgres_binaries,
        postgres_settings={"shared_buffers": "128MB"},
        buckets=(BUCKET,),
        throw_away=True,
    )
    yield stores
    stores.remove()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """An empty data directory that the server's user can reach (pytest's own are closed to it)."""
    folder = _folder_open_to_all()
    yield folder
    Stores(folder).remove()


def _folder_open_to_all() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="haulier-"))
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def migrated(stores: Stores) -> Iterator[Engine]:
    """The session's database, migrated once."""
    upgrade(stores.database_url)
    engine = open_engine(stores.database_url, application_name="tests", pool_size=32)
    with engine.begin() as connection:
        connection.execute(text(_KEEP_SEED))
    yield engine
    engine.dispose()


@pytest.fixture
def settings(stores: Stores, migrated: Engine) -> Settings:
    """Settings for the session's stores; the database is as the migrations left it."""
    with migrated.begin() as connection:
        connection.execute(text(_BACK_TO_SEED))
    return Settings(
        database_url=stores.database_url,
        redis_url=stores.redis_url,
        s3_endpoint=stores.s3_endpoint,
        s3_access_key_id=stores.s3_access_key_id,
        s3_secret_access_key=stores.s3_secret_access_key,
        s3_bucket=BUCKET,
    )


@pytest.fixture
def sessions(settings: Settings, migrated: Engine) -> Sessions:
    """Transactions on the clean database."""
    return make_sessions(migrated)


@pytest.fixture
def objects(settings: Settings) -> ObjectStore:
    """The bucket's server through our own client."""
    return S3Store(settings)
