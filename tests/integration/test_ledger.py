"""The ledger of jobs of the type import: read again, corrected by a file, replayed whatever the file was."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import Any
from uuid import UUID

import pytest

from app.dataplane import replay as dataplane
from app.dataplane import rereading
from app.domain.errors import TransientError
from app.domain.job_types import Result
from app.domain.jobs import SubmitJob
from app.domain.ports import ObjectStore
from app.domain.tables import Column, ColumnType, Table
from app.persistence.sessions import Sessions
from app.services import row_texts
from app.services.runs import Runs
from app.services.tables import Tables
from config.settings import Settings
from tasks.types.replay_failed_rows import JOB_TYPE
from tests.factories import a_service
from tests.integration.conftest import Client
from tests.integration.imports import ImportingAny

THINGS = Table(
    "things",
    (Column("id", ColumnType.BIGINT), Column("name", ColumnType.TEXT), Column("amount", ColumnType.NUMERIC)),
    ("id",),
)
ROWS = [(number, f"n{number}", "x" if number % 2 else str(number)) for number in range(6)]
CSV = "id;name;amount\n" + "".join(f"{number};{name};{amount}\n" for number, name, amount in ROWS)
RECORDS = [{"id": number, "name": name, "amount": amount} for number, name, amount in ROWS]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)
ARRAY = json.dumps(RECORDS, indent=1)
FILES = [CSV.encode(), CSV.encode("utf-16"), LINES.encode(), ARRAY.encode(), gzip.compress(ARRAY.encode(), mtime=0)]


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> ImportingAny:
    Tables(sessions).declare("default", THINGS)
    return ImportingAny(settings, sessions, objects)


def imported(imports: ImportingAny, body: bytes | str, *, raw_rows: int = 100, **config: Any) -> UUID:
    """An import that a worker has done."""
    context = imports.context(imports.submit(body, batch_rows=4, **config), ledger_raw_rows=raw_rows)
    Runs(imports.sessions).complete(context.job, imports.run(context))
    return context.id


def replayed(imports: ImportingAny, source: UUID) -> tuple[UUID, Result]:
    job = a_service(imports.sessions).submit(SubmitJob("default", JOB_TYPE.name, {"job": str(source)}, "tests")).job
    context = imports.context(job.id)
    result = JOB_TYPE.run(context, JOB_TYPE.config.model_validate(context.job.config))
    assert result is not None
    return job.id, result


def amounts(imports: ImportingAny) -> list[Any]:
    return imports.rows("SELECT id, amount::int FROM t_default.things ORDER BY id")


def download(member: Client, source: UUID) -> list[dict[str, str]]:
    text = member.get(f"/v1/jobs/{source}/failed-records?format=csv").get_data(as_text=True)
    return list(csv.DictReader(io.StringIO(text)))


def sent_back(member: Client, source: UUID, rows: list[dict[str, str]]) -> Any:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return member.post(f"/v1/jobs/{source}/failed-records:correct", {"text": file.getvalue()})


@pytest.mark.feature("S4-120", "S2-79")
@pytest.mark.parametrize("body", FILES, ids=["csv", "utf-16", "ndjson", "json", "packed"])
def test_the_download_is_corrected_sent_back_and_replayed_in_every_format(
    imports: ImportingAny, member: Client, body: bytes
) -> None:
    source = imported(imports, body, encoding="auto")
    rows = [{**row, "amount": "7"} for row in download(member, source)]

    answer = sent_back(member, source, rows)
    _, result = replayed(imports, source)

    assert [(row["id"], row["row.id"], row["name"]) for row in rows] == [
        (f"{source}:{row['line']}", number, f"n{number}") for row, number in zip(rows, "135", strict=True)
    ]
    assert (answer.status_code, answer.get_json()) == (200, {"corrected": 3, "unchanged": 0})
    assert (result.data["resolved"], result.data["unresolved"]) == (3, 0)
    assert amounts(imports) == [(0, 0), (1, 7), (2, 2), (3, 7), (4, 4), (5, 7)]


@pytest.mark.parametrize("body", FILES[::2], ids=["csv", "ndjson", "packed"])
def test_rows_whose_text_was_not_kept_are_read_again_from_the_file(
    imports: ImportingAny, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(rereading, "MOST_BYTES", 1)
    monkeypatch.setattr(dataplane, "_ROWS_A_BATCH", 2)
    source, twin = (imported(imports, body, raw_rows=rows, encoding="auto") for rows in (0, 100))

    job_id, result = replayed(imports, source)

    assert [raw for *_, raw in imports.ledger(source)] == [None, None, None]
    assert imports.ledger(job_id) == imports.ledger(twin)
    assert (result.data["books"]["failed"], result.data["without_text"]) == (3, 0)


@pytest.mark.parametrize("body", FILES[::4], ids=["csv", "packed"])
def test_rows_whose_text_was_not_kept_are_downloaded_and_corrected_like_the_others(
    imports: ImportingAny, member: Client, body: bytes
) -> None:
    source, twin = (imported(imports, body, raw_rows=rows, encoding="auto") for rows in (0, 100))
    rows, others = download(member, source), download(member, twin)

    same = sent_back(member, source, rows)
    some = sent_back(member, source, [{"line": row["line"], "amount": "7"} for row in rows[:2]])
    one = member.call("PATCH", f"/v1/jobs/{source}/failed-records/{rows[2]['line']}", json={"values": {"amount": "8"}})
    _, result = replayed(imports, source)

    assert [{**row, "id": ""} for row in rows] == [{**row, "id": ""} for row in others]
    assert [answer.get_json() for answer in (same, some)] == [
        {"corrected": 0, "unchanged": 3},
        {"corrected": 2, "unchanged": 0},
    ]
    assert (one.status_code, one.get_json()["raw"]) == (200, None)
    assert (result.data["resolved"], result.data["unresolved"]) == (3, 0)
    assert amounts(imports) == [(0, 0), (1, 7), (2, 2), (3, 7), (4, 4), (5, 8)]


def test_the_download_says_why_a_text_cannot_be_had(
    imports: ImportingAny, member: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = imported(imports, CSV + f"9;{'n' * 50};x\n", raw_rows=1)
    monkeypatch.setattr(row_texts, "_MOST_BYTES", 40)
    before = download(member, source)
    imports.put("id;name;amount\n", name=f"uploads/{imports.files}.csv")
    after = download(member, source)

    answer = sent_back(member, source, [{"line": "5", "amount": "7"}])
    whole = sent_back(member, source, [{"line": "5", "row.id": "3", "name": "n", "amount": "7"}])

    assert [(row["raw_missing"], row["name"]) for row in before[1:]] == [
        ("", "n3"),
        ("", "n5"),
        ("ledger.row_too_large", ""),
    ]
    assert [(row["raw_missing"], row["name"]) for row in after[:3]] == [
        ("", "n1"),
        ("s3.changed", ""),
        ("s3.changed", ""),
    ]
    assert [fault["pointer"] for fault in answer.get_json()["errors"]] == ["/text/rows/1/id", "/text/rows/1/name"]
    assert whole.get_json() == {"corrected": 1, "unchanged": 0}


@pytest.mark.feature("S2-102")
@pytest.mark.parametrize("raw_rows", [100, 0])
@pytest.mark.parametrize("body", [CSV, LINES], ids=["csv", "ndjson"])
def test_a_refused_row_is_read_by_its_line_with_its_fields_and_what_is_wrong_with_them(
    imports: ImportingAny, member: Client, body: str, raw_rows: int
) -> None:
    source = imported(imports, body, raw_rows=raw_rows)
    listed = member.get(f"/v1/jobs/{source}/failed-records").get_json()["items"]
    path = f"/v1/jobs/{source}/failed-records/{listed[1]['line']}"

    before = member.get(path).get_json()
    member.call("PATCH", path, json={"values": {"amount": "7"}})
    replayed(imports, source)
    after = member.get(path).get_json()

    assert (before["id"], before["valid"]) == (listed[1]["id"], False)
    assert before["values"] == {"id": "3", "name": "n3", "amount": "x"}
    assert before["messages"] == [{name: listed[1][name] for name in ("field", "code", "message")}]
    assert (after["valid"], after["values"]["amount"]) == (True, "7")


def test_a_row_that_cannot_be_read_has_no_fields_and_a_line_without_one_is_404(
    imports: ImportingAny, member: Client
) -> None:
    source = imported(imports, 'id;name;amount\n1;"n;2\n2;n;3\n')

    broken = member.get(f"/v1/jobs/{source}/failed-records/2").get_json()
    absent = member.get(f"/v1/jobs/{source}/failed-records/3")

    assert (broken["values"], broken["valid"], broken["field"]) == (None, False, None)
    assert (absent.status_code, absent.get_json()["code"]) == (404, "ledger.no_such_line")


def test_rows_that_are_sent_back_while_s3_is_away_are_not_taken(
    imports: ImportingAny, member: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = imported(imports, CSV, raw_rows=0)

    def away(*_: Any, **__: Any) -> Any:
        raise TransientError("S3 does not answer", code="s3.unavailable")

    monkeypatch.setattr(row_texts, "opened", away)
    answer = sent_back(member, source, [{"line": "3", "amount": "7"}])
    rows = download(member, source)

    assert (answer.status_code, answer.get_json()["code"]) == (503, "s3.unavailable")
    assert [row["raw_missing"] for row in rows] == ["s3.unavailable"] * 3


def test_rows_without_a_text_wait_when_the_file_is_another_now(imports: ImportingAny) -> None:
    source = imported(imports, CSV, raw_rows=1)
    imports.put("id;name;amount\n", name=f"uploads/{imports.files}.csv")

    job_id, result = replayed(imports, source)

    assert result.data["source"]["code"] == "s3.changed"
    assert (result.data["books"]["read"], result.data["unresolved"], result.data["without_text"]) == (1, 3, 2)
    assert [line for line, *_ in imports.ledger(job_id)] == [3]


def test_what_is_sent_back_as_it_came_is_no_correction(imports: ImportingAny, member: Client) -> None:
    source = imported(imports, "id;name;amount\n1;a;x\n2;b\n")

    answer = sent_back(member, source, download(member, source))

    assert answer.get_json() == {"corrected": 0, "unchanged": 2}
    assert imports.rows("SELECT count(*) FROM failed_records WHERE corrected IS NOT NULL") == [(0,)]


MISFITS = [
    ("line,amount\n3,7\n99,7\n", "/text/rows/2/line", "no line 99"),
    ("line,amount\n3,7\n3,8\n", "/text/rows/2/line", "more than once"),
    ("line,amount\n3,7\nx,8\n", "/text/rows/2/line", "number of a line"),
    ("id,amount\n00000000-0000-0000-0000-000000000000:3,7\n", "/text/rows/1/id", "expected"),
    ("line,amount\n3,7\n5,7,7\n", "/text/rows/2", "expected 2 fields"),
    ("line,amuont\n3,7\n", "/text/header", "amuont"),
    ("amount\n7\n", "/text/header", "id or line"),
    ("line,line\n3,7\n", "/text/header", "more than once"),
    ('line,amount\n3,7\n5,"7\n', "/text", "CSV"),
    ("", "/text", "Shorter than"),
]
"""Files of corrections, where each is wrong, and a word of what is said."""


def test_of_a_file_that_does_not_fit_the_ledger_nothing_is_taken(imports: ImportingAny, member: Client) -> None:
    path = f"/v1/jobs/{imported(imports, CSV)}/failed-records:correct"

    answers = [member.post(path, {"text": text}) for text, *_ in MISFITS]

    assert {answer.status_code for answer in answers} == {422}
    problems = [answer.get_json()["errors"] for answer in answers]
    assert [[one["pointer"] for one in said] for said in problems] == [[pointer] for _, pointer, _ in MISFITS]
    assert [words for (_, _, words), [said] in zip(MISFITS, problems, strict=True) if words not in said["detail"]] == []
    assert imports.rows("SELECT count(*) FROM failed_records WHERE corrected IS NOT NULL") == [(0,)]


def test_a_row_that_a_replay_has_loaded_takes_no_correction_by_a_file(imports: ImportingAny, member: Client) -> None:
    source = imported(imports, CSV)
    corrections = {"text": "line,amount\n3,7\n"}
    first = member.post(f"/v1/jobs/{source}:replay", {"corrections": corrections})
    replayed(imports, source)

    late = member.post(f"/v1/jobs/{source}/failed-records:correct", corrections)

    assert first.status_code == 202
    assert late.get_json()["errors"][0]["detail"] == "line 3 was loaded by a replay already"


def test_corrections_come_as_an_upload_of_the_same_tenant(
    imports: ImportingAny, member: Client, stranger: Client
) -> None:
    source = imported(imports, CSV)
    key = imports.put("\ufeffline,amount\n3,7\n5,8\n")
    path = f"/v1/jobs/{source}/failed-records:correct"

    taken = member.post(path, {"upload": key})
    gone = member.post(path, {"upload": "uploads/nothing.csv"})
    strange = stranger.post(path, {"upload": key})

    assert taken.get_json() == {"corrected": 2, "unchanged": 0}
    assert (gone.status_code, gone.get_json()["errors"][0]["pointer"]) == (422, "/upload")
    assert strange.status_code == 404


@pytest.mark.feature("S2-72")
def test_every_failed_row_has_an_id_and_its_line(imports: ImportingAny, member: Client) -> None:
    source = imported(imports, CSV)

    items = member.get(f"/v1/jobs/{source}/failed-records").get_json()["items"]
    corrected = member.call("PATCH", f"/v1/jobs/{source}/failed-records/3", json={"values": {"amount": "1"}})

    assert [(item["id"], item["line"]) for item in items] == [(f"{source}:{line}", line) for line in (3, 5, 7)]
    assert corrected.get_json()["id"] == f"{source}:3"
