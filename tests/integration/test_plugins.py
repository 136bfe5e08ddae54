"""Job types of other packages: the example runs, and one that cannot be loaded is named at the start."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests
from celery.exceptions import Retry
from sqlalchemy import text

from app.bootstrap import build_services
from app.domain.clock import SystemClock
from app.domain.errors import TransientError
from app.domain.job_types import discover
from app.domain.jobs import Outcome, SubmitJob
from app.domain.plugins import PluginError
from app.domain.ports import ObjectStore
from app.factory import create_app
from app.persistence import failed_records
from app.persistence.sessions import Sessions
from app.services.artifacts import Artifacts
from config.settings import Settings
from tests.integration.conftest import Client
from tests.integration.packages import install, install_example
from tests.integration.worker import Worker, a_task, jobs_of

GROUP = "haulier.job_types"
ANOTHER_QUEUE = """
from dataclasses import replace
from tasks.types.echo import JOB_TYPE as ECHO
JOB_TYPE = replace(ECHO, name="mine", queue="gpu")
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def example(site: Path, sessions: Sessions, settings: Settings, objects: ObjectStore) -> Iterator[Worker]:
    """A worker of an installation that has the example package."""
    install_example(site)
    worker = Worker(sessions, settings, objects)
    registry = discover("tasks.types")
    worker.task, worker.service = a_task(registry), jobs_of(sessions, registry)
    worker.heart.start()
    yield worker
    worker.heart.stop()
    sys.modules.pop("haulier_example_transfers", None)


def submit(worker: Worker, lines: list[str]) -> UUID:
    request = SubmitJob(tenant="default", type="add_up_transfers", config={"lines": lines}, created_by="test")
    return worker.service.submit(request).job.id


@pytest.mark.feature("S2-28", "S2-103")
def test_the_example_adds_up_refuses_what_is_bad_and_stores_its_file(
    example: Worker, sessions: Sessions, objects: ObjectStore, settings: Settings
) -> None:
    job_id = submit(example, ["alice;10.50", "bob;1", "alice;0.25", "bob;one"])

    with example.claimed() as (slot, context):
        example.task.run_job(slot, context)

    job = example.job(job_id)
    [file] = Artifacts(sessions, objects, settings, SystemClock()).of_job("default", job_id)
    with sessions.begin() as session:
        [refused] = failed_records.of_job(session, "default", job_id)
    assert (job.outcome, job.progress.rows_done, job.progress.stage) == (Outcome.PARTIAL, 4, "writing")
    assert (job.result or {})["sums"] == {"alice": "10.75", "bob": "1"}
    assert (refused.line, refused.code, refused.raw) == (4, "transfers.bad_amount", "bob;one")
    assert list(csv.reader(requests.get(file.url, timeout=10).text.splitlines())) == [
        ["account", "sum"],
        ["alice", "10.75"],
        ["bob", "1"],
    ]


def test_the_example_goes_on_from_its_checkpoint_after_an_attempt_that_failed(
    example: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(example, [*["alice;1"] * 150, "alice;x"])
    with monkeypatch.context() as away, example.claimed() as (slot, context):
        away.setattr("tasks.files.store", _is_away)
        with pytest.raises(TransientError) as failed:
            example.task.run_job(slot, context)
        with pytest.raises(Retry):
            example.task.retry(exc=failed.value)
    checkpoint = example.job(job_id).checkpoint or {}
    with example.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'queued', admitted_at = now()"))

    with example.claimed() as (slot, context):
        example.task.run_job(slot, context)

    job = example.job(job_id)
    assert checkpoint["lines"] == 100
    assert (job.result or {})["sums"] == {"alice": "150"}
    assert (job.attempts, job.error_count) == (2, 1)


@pytest.mark.feature("S2-103")
def test_the_catalogue_lists_the_example_with_the_schema_of_its_config(
    site: Path, settings: Settings, member: Client
) -> None:
    install_example(site)
    install(site, "for-rows", {"haulier.validators": {"my_rule": "a:B"}, "haulier.enrichers": {"my_service": "a:C"}})
    install(site, "for-files", {"haulier.sinks": {"my_place": "a:D"}})
    services = build_services(settings, application_name="tests plug-ins", pool_size=2)
    client = Client(create_app(settings, services), member.key)

    catalogue = client.get("/v1/job-types").get_json()

    services.sessions.kw["bind"].dispose()
    sys.modules.pop("haulier_example_transfers", None)
    listed = {one["name"]: one["config_schema"] for one in catalogue["items"]}
    assert "lines" in listed["add_up_transfers"]["properties"]
    assert (catalogue["validators"], catalogue["enrichers"]) == (["my_rule"], ["http", "my_service"])
    assert catalogue["sinks"] == ["drop_folder", "my_place"]


def _is_away(*_: Any, **__: Any) -> None:
    raise TransientError("S3 is away")


@pytest.mark.parametrize(
    ("value", "module", "said"),
    [
        ("broken_plugin:JOB_TYPE", "import not_installed_anywhere", "ModuleNotFoundError: No module named"),
        ("broken_plugin:JOB_TYPE", "raise SystemExit('bye')", "cannot be loaded: SystemExit: bye"),
        ("broken_plugin:MISSING", "", "cannot be loaded: AttributeError"),
        ("broken_plugin:JOB_TYPE", "JOB_TYPE = 5", "leads to no JobType, got int"),
        ("tasks.types.echo:JOB_TYPE", "", "there is another job type called 'echo'"),
        (
            "broken_plugin:JOB_TYPE",
            ANOTHER_QUEUE,
            "the queue of a job type is one of data, http, small, got 'gpu'",
        ),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_named_with_its_cause(
    site: Path, monkeypatch: pytest.MonkeyPatch, value: str, module: str, said: str
) -> None:
    (site / "broken_plugin.py").write_text(module)
    install(site, "some-package", {GROUP: {"mine": value}})

    with pytest.raises(PluginError) as refused:
        discover("tasks.types")

    sys.modules.pop("broken_plugin", None)
    assert f"entry point mine = {value} in group {GROUP} of package some-package 1.0.0" in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "command",
    [["celery", "-A", "tasks", "worker", "-Q", "data", "-n", "broken@test", "-c", "1"], ["haulier", "web"]],
    ids=["worker", "web"],
)
def test_no_process_starts_with_a_plug_in_that_cannot_be_loaded(
    site: Path, settings: Settings, command: list[str]
) -> None:
    (site / "broken_plugin.py").write_text("import not_installed_anywhere")
    install(site, "some-package", {GROUP: {"mine": "broken_plugin:JOB_TYPE"}})
    environment = {
        **os.environ,
        "PYTHONPATH": f"{site}:{Path.cwd()}",
        "HAULIER_REDIS_URL": settings.redis_url.get_secret_value(),
        "HAULIER_DATABASE_URL": settings.database_url.get_secret_value(),
    }
    program = [str(Path(sys.executable).with_name(command[0])), *command[1:]]

    ended = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode != 0
    assert "entry point mine = broken_plugin:JOB_TYPE" in ended.stderr
