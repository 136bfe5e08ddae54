"""Sinks of other packages: exports are brought to them, file by file, the manifest last."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import InvalidRequestError, TransientError
from app.domain.job_types import Result
from app.domain.jobs import SubmitJob
from app.domain.sinks import DELIVER_RESULTS as DELIVER
from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services.runs import Runs
from app.services.submissions import Checks, TenantSubmission
from app.services.tables import Tables
from app.storage.s3 import S3Store
from config.settings import Settings
from tasks.types import deliver_results
from tests.factories import registry, stored
from tests.integration.exports import Exporting
from tests.integration.packages import install_example

DROP = {"provider": "drop_folder", "config": {"folder": "daily"}}


@pytest.fixture
def exporting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sessions: Sessions, settings: Settings
) -> Iterator[Exporting]:
    """An installation with the example package and a table of three rows."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("TRANSFERS_DROP_FOLDER", str(tmp_path / "drop"))
    install_example(site)
    Tables(sessions).declare(
        "default", Table("letters", (Column("letter", ColumnType.TEXT, required=True),), ("letter",))
    )
    with sessions.begin() as session:
        session.connection().exec_driver_sql("INSERT INTO t_default.letters (letter) VALUES ('a'), ('b'), ('c')")
    yield Exporting(settings, sessions, S3Store(settings))
    sys.modules.pop("haulier_example_transfers", None)


def dropped(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "drop" / "daily").iterdir()}


@pytest.mark.feature("S2-103")
def test_the_examples_sink_takes_the_files_of_an_export_and_its_manifest(exporting: Exporting, tmp_path: Path) -> None:
    result = exporting.export("letters", max_rows_per_part=2, destination=DROP)

    files = dropped(tmp_path)
    parts = exporting.manifest(result)["parts"]
    stored = {key.rsplit("/", 1)[-1]: exporting.read(key) for key in [part["key"] for part in parts]}
    manifest = result.data["manifest_key"]
    assert [part["rows"] for part in parts] == [2, 1]
    assert files == {**stored, manifest.rsplit("/", 1)[-1]: exporting.read(manifest)}
    assert (result.data["provider"], result.data["delivered"]) == ("drop_folder", 3)


def test_a_file_that_a_sink_has_taken_is_not_brought_by_the_next_attempt(
    exporting: Exporting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = exporting.submit("letters", max_rows_per_part=2, destination=DROP)
    brought: list[str] = []

    import haulier_example_transfers as package  # type: ignore[import-not-found]  # it is installed for this test

    taken = package.deliver

    def flaky(job: Any, config: Any, file: Any, body: Any) -> None:
        brought.append(file.name)
        if len(brought) == 2:
            raise TransientError("the folder is away")
        taken(job, config, file, body)

    monkeypatch.setattr(package, "SINK", package.Sink(package.Drop, flaky))
    with pytest.raises(TransientError):
        exporting.run(job)

    exporting.run(exporting.claim(job))

    assert brought[0] not in brought[1:]
    assert brought[1] == brought[2]
    assert len(brought) == 4
    assert len(dropped(tmp_path)) == 3


def test_results_are_brought_to_a_sink_of_a_package_as_one_file(exporting: Exporting, tmp_path: Path) -> None:
    letters = exporting.submit("letters")
    Runs(exporting.sessions).complete(letters, Result({"said": "x"}))
    sink = {**DROP, "key": "{job_id}-{schedule_id}.ndjson"}
    request = SubmitJob("default", DELIVER, {"job": str(letters.id), "sink": sink}, "test")
    with exporting.sessions.begin() as session:
        given = stored(session, request)
    job = exporting.claim(given)

    result = deliver_results.run(exporting.context(job), deliver_results.DeliverResults.model_validate(job.config))

    ((name, body),) = dropped(tmp_path).items()
    assert name == f"{letters.id}-none.ndjson"
    assert json.loads(body)["result"] == {"said": "x"}
    assert (result.data["rows"], result.data["sha256"]) == (1, hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize(
    ("destination", "code", "pointer"),
    [
        ({"provider": "nowhere"}, "plugin.not_found", "/config/destination/provider"),
        ({**DROP, "config": {"folder": "../up"}}, "sink.config_invalid", "/config/destination/config"),
        ({"sink": "lake", "config": {"folder": "x"}}, "job.config_invalid", "/config/destination"),
        ({"sink": "lake", "provider": "drop_folder"}, "job.config_invalid", "/config/destination"),
    ],
)
def test_a_sink_that_cannot_be_had_is_refused_with_its_place(
    exporting: Exporting, destination: dict[str, Any], code: str, pointer: str
) -> None:
    tables = Tables(exporting.sessions)
    submission = TenantSubmission("default", settings=exporting.settings, sessions=exporting.sessions, tables=tables)
    request = SubmitJob("default", "export", {"table": "letters", "destination": destination}, "test")

    with pytest.raises(InvalidRequestError) as caught:
        Checks(registry(), lambda _: submission).checked(request)

    assert (caught.value.code, caught.value.problems[0].pointer) == (code, pointer)
