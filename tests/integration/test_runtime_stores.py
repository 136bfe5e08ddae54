"""The embedded stores come up, keep their data through kills, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg2
import pytest
import redis
from sqlalchemy import text

from app.domain.ports import ObjectRef
from app.persistence.sessions import Sessions
from app.runtime import processes
from app.runtime.account import OUTSIDE
from app.runtime.errors import RuntimeStateError, StoreStartError
from app.runtime.postgres import Postgres
from app.runtime.stores import Stores
from app.storage.s3 import S3Store
from config.settings import Settings

_STARTER = """
import sys, time
from pathlib import Path
from app.runtime.postgres import THROW_AWAY
from app.runtime.stores import Stores

stores = Stores(Path(sys.argv[1]), postgres_settings=THROW_AWAY, throw_away=sys.argv[2] == "throw-away")
stores.start()
print(stores.postgres.pid, stores.valkey.pid, stores.objects.pid, flush=True)
time.sleep(600)
"""


def _started_elsewhere(data_dir: Path, kind: str = "keep") -> tuple[subprocess.Popen[str], list[int]]:
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER, str(data_dir), kind], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert starter.stdout is not None
    with starter.stdout:
        pids = [int(word) for word in starter.stdout.readline().split()]
    assert len(pids) == 3
    return starter, pids


def _within(seconds: float, condition: object) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator] # any callable will do
            return True
        time.sleep(0.05)
    return False


def _execute(stores: Stores, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(stores.database_url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def _put_one_of_each(stores: Stores, value: str) -> None:
    _execute(stores, "CREATE TABLE IF NOT EXISTS kept (value text)")
    _execute(stores, f"INSERT INTO kept VALUES ('{value}')")
    with redis.Redis.from_url(stores.redis_url) as client:
        client.rpush("kept", value)
    _object_store(stores).put(ObjectRef("haulier-test", f"kept/{value}"), value.encode(), content_type="text/plain")


def _kept(stores: Stores) -> tuple[list[str], list[str], list[str]]:
    rows = [str(row[0]) for row in _execute(stores, "SELECT value FROM kept ORDER BY value")]
    with redis.Redis.from_url(stores.redis_url) as client:
        words = [word.decode() for word in client.lrange("kept", 0, -1)]
    keys = [key.removeprefix("kept/") for key, _ in _object_store(stores).list("haulier-test", "kept/")]
    return rows, words, keys


def _object_store(stores: Stores) -> S3Store:
    return S3Store(
        Settings(
            s3_endpoint=stores.s3_endpoint,
            s3_access_key_id=stores.s3_access_key_id,
            s3_secret_access_key=stores.s3_secret_access_key,
            s3_bucket="haulier-test",
        )
    )


def test_stores_killed_twice_come_back_with_what_was_written(durable_stores: Stores) -> None:
    durable_stores.start()
    values = []

    for value in ("first", "second"):
        _put_one_of_each(durable_stores, value)
        values.append(value)
        time.sleep(1.2)  # Valkey flushes to disk once a second.
        for server in (durable_stores.postgres, durable_stores.valkey, durable_stores.objects):
            server.kill()
        durable_stores.start()

    assert _kept(durable_stores) == (values, values, values)


def test_data_are_found_again_after_an_orderly_stop(durable_stores: Stores, postgres_binaries: Path | None) -> None:
    durable_stores.start()
    _put_one_of_each(durable_stores, "once")
    durable_stores.stop()

    again = Stores(durable_stores.data_dir, postgres_binaries=postgres_binaries, buckets=("haulier-test",))
    again.start()
    kept = _kept(again)
    again.stop()

    assert kept == (["once"], ["once"], ["once"])


def test_the_stores_of_a_killed_starter_end_by_themselves(data_dir: Path) -> None:
    starter, pids = _started_elsewhere(data_dir)

    starter.kill()
    starter.wait()

    assert _within(15, lambda: not any(processes.process(pid) for pid in pids))
    assert data_dir.exists()


def test_the_throw_away_stores_of_a_killed_starter_take_their_folder_along(data_dir: Path) -> None:
    starter, pids = _started_elsewhere(data_dir, "throw-away")

    starter.kill()
    starter.wait()

    assert _within(15, lambda: not data_dir.exists())
    assert not any(processes.process(pid) for pid in pids)


def test_stores_start_beside_the_leftovers_of_a_stack_that_was_killed_whole(data_dir: Path) -> None:
    starter, old = _started_elsewhere(data_dir)
    # The reaper first, so that nobody is left to clean up, then the starter.
    reapers = processes.of_data_dir(data_dir)
    for one in reapers:
        one.send(signal.SIGKILL)
    starter.kill()
    starter.wait()
    assert len(reapers) == 1
    assert all(processes.process(pid) for pid in old)

    stores = Stores(data_dir, postgres_settings={"shared_buffers": "128MB"})
    stores.start()
    answer = _execute(stores, "SELECT 1")
    stores.stop()

    assert answer == [(1,)]
    assert not any(processes.process(pid) for pid in old)


def test_a_lock_file_with_the_number_of_a_stranger_does_not_stop_postgres(durable_stores: Stores) -> None:
    durable_stores.start()
    durable_stores.postgres.kill()
    lock = durable_stores.postgres.folder / "postmaster.pid"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    durable_stores.postgres.start()

    assert _execute(durable_stores, "SELECT 1") == [(1,)]


def test_two_copies_run_side_by_side_with_other_secrets(stores: Stores, durable_stores: Stores) -> None:
    durable_stores.start()

    ours, theirs = stores.secrets, durable_stores.secrets

    assert _execute(stores, "SELECT 1") == _execute(durable_stores, "SELECT 1") == [(1,)]
    assert ours.postgres_password != theirs.postgres_password
    assert ours.s3_secret_access_key != theirs.s3_secret_access_key


def test_a_port_that_was_taken_meanwhile_is_replaced(durable_stores: Stores, stores: Stores) -> None:
    durable_stores.valkey.port = stores.valkey.port

    durable_stores.start()

    assert durable_stores.valkey.port != stores.valkey.port


def test_a_server_that_cannot_start_says_why_with_its_own_last_words(durable_stores: Stores) -> None:
    durable_stores.postgres._settings["shared_buffers"] = "a lot"  # a setting Postgres refuses

    with pytest.raises(StoreStartError) as caught:
        durable_stores.start()

    assert 'invalid value for parameter "shared_buffers"' in caught.value.detail
    assert processes.servers_in(durable_stores.postgres.folder) == []


def test_binaries_that_are_not_there_are_named(data_dir: Path) -> None:
    postgres = Postgres(data_dir / "postgres", data_dir / "log", port=1, password="p", binaries=Path("/nowhere/bin"))

    with pytest.raises(RuntimeStateError, match="initdb in /nowhere/bin"):
        postgres.start()


def test_a_database_without_its_passwords_is_refused_and_left_alone(durable_stores: Stores) -> None:
    durable_stores.start()
    durable_stores.stop()
    (durable_stores.data_dir / "secrets.json").unlink()

    with pytest.raises(RuntimeStateError, match=r"secrets\.json are gone"):
        Stores(durable_stores.data_dir).start()

    assert durable_stores.postgres.folder.exists()


def test_an_initialisation_that_was_cut_off_starts_anew(durable_stores: Stores) -> None:
    half_done = durable_stores.postgres.folder.with_name("postgres.new")
    half_done.mkdir()
    (half_done / "PG_VERSION").write_text("18\n")

    durable_stores.start()

    assert _execute(durable_stores, "SELECT 1") == [(1,)]
    assert not half_done.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user for Postgres")
def test_as_root_data_behind_a_closed_folder_live_outside_and_no_mode_changes(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    stores = Stores(tmp_path / "data", postgres_settings={"shared_buffers": "128MB"})

    stores.start()
    place = stores.postgres.folder
    mode = tmp_path.stat().st_mode & 0o777
    stores.remove()

    assert place.is_relative_to(OUTSIDE)
    assert mode == 0o700
    assert not place.exists()


def test_only_the_owner_can_read_secrets_and_no_command_line_shows_one(stores: Stores) -> None:
    secrets = stores.secrets

    servers = [processes.process(server.pid) for server in (stores.postgres, stores.valkey, stores.objects)]
    shown = " ".join(word for one in servers if one is not None for word in one.command_line)

    assert (stores.data_dir / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert (stores.valkey.folder / "valkey.conf").stat().st_mode & 0o777 == 0o600
    for secret in (secrets.postgres_password, secrets.valkey_password, secrets.s3_secret_access_key):
        assert secret not in shown


def test_wrong_passwords_are_refused(stores: Stores) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(stores.database_url.replace(stores.secrets.postgres_password, "wrong"))
    with (
        pytest.raises(redis.AuthenticationError),
        redis.Redis.from_url(stores.redis_url.replace(stores.secrets.valkey_password, "wrong")) as client,
    ):
        client.ping()


def test_tests_find_the_database_as_the_migrations_left_it(sessions: Sessions) -> None:
    with sessions.begin() as session:
        tenants = session.execute(text("SELECT name FROM tenants")).scalars().all()
        jobs = session.execute(text("SELECT count(*) FROM jobs")).scalar_one()

    assert (tenants, jobs) == (["default"], 0)
