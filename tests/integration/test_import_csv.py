from __future__ import annotations

import codecs
import gzip
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import uuid5

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from app.dataplane import importer
from app.dataplane.batches import KEY_NAMESPACE
from app.domain.errors import ForbiddenError, HaulierError, InvalidRequestError, JobError, JobPaused, NotFoundError
from app.domain.jobs import Outcome
from app.domain.ports import ObjectRef, ObjectStore
from app.domain.tables import Column, ColumnType, Index, Table
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from config.settings import Settings
from tests.integration.imports import Importing

THINGS = Table(
    name="things",
    columns=(
        Column("id", ColumnType.BIGINT),
        Column("name", ColumnType.TEXT, required=True, max_length=40),
        Column("amount", ColumnType.NUMERIC),
        Column("at", ColumnType.TIMESTAMPTZ),
        Column("tags", ColumnType.TEXT_ARRAY),
        Column("note", ColumnType.TEXT),
    ),
    key=("id",),
    indexes=(Index(("note",)), Index(("tags",))),
)


@pytest.fixture
def imports(settings: Settings, sessions: Sessions, objects: ObjectStore) -> Importing:
    importing = Importing(settings, sessions, objects)
    Tables(sessions).declare("default", THINGS)
    return importing


def books(result: Any) -> dict[str, int]:
    return {name: count for name, count in result.data["books"].items() if count}


def refused(imports: Importing, body: bytes | str, **config: Any) -> HaulierError:
    with pytest.raises(HaulierError) as raised:
        imports.load(body, **{"table": "things", **config})
    return raised.value


@pytest.mark.feature("S2-92")
def test_rows_are_inserted_then_updated_only_when_they_differ(imports: Importing) -> None:
    first = imports.load("id,name,amount\n1,one,1.50\n2,two,\n", table="things")
    before = imports.rows("SELECT id, haulier_updated_at, haulier_job_id FROM t_default.things ORDER BY id")

    again = imports.load("id,name,amount\n1,one,1.50\n2,zwei,\n3,three,3\n", table="things")

    after = imports.rows("SELECT id, haulier_updated_at, haulier_job_id FROM t_default.things ORDER BY id")
    assert books(first) == {"read": 2, "loaded": 2}
    assert books(again) == {"read": 3, "loaded": 1, "updated": 1, "unchanged": 1}
    assert after[0] == before[0]
    assert after[1][1] > before[1][1]
    assert after[1][2] == after[2][2] != before[1][2]
    assert imports.rows("SELECT name, amount FROM t_default.things ORDER BY id") == [
        ("one", 1.5),
        ("zwei", None),
        ("three", 3),
    ]


def test_columns_that_the_file_lacks_keep_their_values(imports: Importing) -> None:
    imports.load("id,name,note\n1,one,kept\n", table="things")

    imports.load("id,name\n1,uno\n", table="things")

    assert imports.rows("SELECT name, note FROM t_default.things") == [("uno", "kept")]


@pytest.mark.parametrize("batch_rows", [1, 3, 1000])
def test_the_last_line_of_a_key_wins_in_and_across_batches(imports: Importing, batch_rows: int) -> None:
    chosen = random.Random(7)
    lines = [(chosen.randrange(9), f"n{number}") for number in range(60)]
    body = "id,name\n" + "".join(f"{key},{name}\n" for key, name in lines)

    result = imports.load(body, table="things", batch_rows=batch_rows)

    assert imports.rows("SELECT id, name FROM t_default.things ORDER BY id") == sorted(dict(lines).items())
    counted = result.data["books"]
    assert counted["loaded"] == 9
    assert counted["loaded"] + counted["updated"] + counted["superseded"] == counted["read"] == 60


def test_modes_leave_alone_what_they_are_not_for(imports: Importing) -> None:
    imports.load("id,name\n1,one\n2,two\n", table="things")

    inserted = imports.load("id,name\n1,changed\n3,three\n3,drei\n", table="things", mode="insert")
    updated = imports.load("id,name\n1,uno\n2,two\n4,four\n", table="things", mode="update")

    assert books(inserted) == {"read": 3, "loaded": 1, "superseded": 1, "skipped": 1}
    assert books(updated) == {"read": 3, "updated": 1, "unchanged": 1, "skipped": 1}
    assert imports.rows("SELECT id, name FROM t_default.things ORDER BY id") == [(1, "uno"), (2, "two"), (3, "drei")]


@pytest.mark.feature("S4-114")
def test_text_survives_with_every_character_that_copy_gives_a_meaning(imports: Importing) -> None:
    values = [
        "back\\slash",
        "\\.",
        "\\N",
        "tab\there",
        "two\nlines",
        "cr\r\nlf",
        'quo"te',
        "a,b",
        "ümläut 漢字 😀",
        " spaced ",
    ]
    body = "id,name,note\n" + "".join(
        f'{number},n,"{v.replace(chr(34), chr(34) * 2)}"\n' for number, v in enumerate(values)
    )

    imports.load(body, table="things")

    assert [note for (note,) in imports.rows("SELECT note FROM t_default.things ORDER BY id")] == values


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("a; b ;c", ["a", "b", "c"]),
        ("a, b", ["a", "b"]),
        ("one", ["one"]),
        ('["a","b;c",1,null,true]', ["a", "b;c", "1", None, "true"]),
        ("{x,y}", ["x", "y"]),
        ('{"p,q",r}', ["p,q", "r"]),
        ("{}", []),
        (";", []),
        ('say "hi"; back\\slash', ['say "hi"', "back\\slash"]),
    ],
)
def test_arrays_come_as_lists_json_or_postgres_literals(imports: Importing, text: str, stored: list[Any]) -> None:
    imports.load('id,name,tags\n1,n,"' + text.replace('"', '""') + '"\n', table="things")

    assert imports.rows("SELECT tags FROM t_default.things") == [(stored,)]


@pytest.mark.feature("S1-16", "S2-22", "S2-23", "S4-113")
def test_refused_rows_stand_in_the_ledger_with_line_field_reason_and_text(imports: Importing) -> None:
    body = (
        "id,name,amount,at\n"
        "1,good,1,2024-01-01\n"
        "2,ragged\n"
        "3,num,1_000,\n"
        "4,full-width,１２,\n"
        "5,zone,,2024-01-01T00:00:00+25:00\n"
        "x,key,,\n"
        ",none,,\n"
        "8,,1,\n"
        "9,overflow,1e200000,\n"
        "10," + "n" * 41 + ",,\n"
        "11,day,,2023-02-29\n"
        "99999999999999999999,big,,\n"
    )

    result = imports.load(body, table="things")

    assert result.outcome is Outcome.PARTIAL
    assert result.message == "successfully loaded 1 of 12 records"
    assert [(line, code, field) for line, code, field, _ in imports.ledger()] == [
        (3, "csv.ragged", None),
        (4, "value.numeric", "amount"),
        (5, "value.numeric", "amount"),
        (6, "value.timestamptz", "at"),
        (7, "value.bigint", "id"),
        (8, "value.required", "id"),
        (9, "value.required", "name"),
        (10, "value.numeric", "amount"),
        (11, "value.too_long", "name"),
        (12, "value.timestamptz", "at"),
        (13, "value.bigint", "id"),
    ]
    assert imports.ledger()[1][3] == "3,num,1_000,"
    ranges = imports.rows("SELECT first_byte, end_byte FROM failed_records ORDER BY line")
    assert [body.encode()[begin:end].decode().rstrip("\n") for begin, end in ranges] == [
        raw for *_, raw in imports.ledger()
    ]


def test_a_row_that_only_postgres_refuses_is_found_by_halving(imports: Importing) -> None:
    too_wide = "".join(random.Random(3).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=12_000))
    lines = [f"{number},n,{too_wide if number in (17, 63) else 'fine'}\n" for number in range(100)]

    result = imports.load("id,name,note\n" + "".join(lines), table="things", batch_rows=50)

    assert books(result) == {"read": 100, "loaded": 98, "failed": 2}
    assert [(line, code) for line, code, *_ in imports.ledger()] == [(19, "db.54000"), (65, "db.54000")]
    assert imports.rows("SELECT count(*) FROM t_default.things") == [(98,)]


@pytest.mark.feature("S2-12", "S4-113")
def test_bytes_that_are_no_text_are_kept_in_base64(imports: Importing) -> None:
    imports.load(b"id,name\n1,\xff\xfe\n2,ok\n3,\x00\n", table="things")

    kept = imports.rows("SELECT line, code, raw, raw_is_base64 FROM failed_records ORDER BY line")
    assert kept == [(2, "csv.encoding", "MSz//go=", True), (4, "csv.nul", "MywACg==", True)]


@pytest.mark.feature("S2-11", "S2-12", "S4-112")
@pytest.mark.parametrize(
    ("body", "config"),
    [
        (codecs.BOM_UTF8 + "id,name\n1,é\n".encode(), {}),
        (codecs.BOM_UTF16_LE + "id,name\n1,é\n".encode("utf-16-le"), {}),
        (codecs.BOM_UTF16_BE + "id,name\n1,é\n".encode("utf-16-be"), {}),
        ("id,name\n1,é\n".encode("latin-1"), {"encoding": "latin-1"}),
        ("id;name\r\n1;é\r\n".encode(), {"delimiter": ";"}),
        ("id\tname\r1\té\r".encode(), {"delimiter": "\t"}),
        (gzip.compress("id,name\n1,é\n".encode(), mtime=0), {}),
        (gzip.compress(b"id,name\n", mtime=0) + gzip.compress("1,é\n".encode(), mtime=0), {"compression": "gzip"}),
        ("\n\nID , Name\n\n1,é".encode(), {}),
        ("Kennung,name,extra\n1,é,x\n".encode(), {"mapping": {"kennung": "id"}, "ignore_unknown": True}),
    ],
)
def test_a_file_is_read_whatever_its_form(imports: Importing, body: bytes, config: dict[str, Any]) -> None:
    result = imports.load(body, table="things", **config)

    assert imports.rows("SELECT id, name FROM t_default.things") == [(1, "é")]
    assert result.outcome is Outcome.SUCCESS


@pytest.mark.feature("S4-111", "S4-116")
@pytest.mark.parametrize(
    ("body", "config", "code"),
    [
        (b"", {}, "csv.empty"),
        (b"\n\n", {}, "csv.empty"),
        (b"id,name,ID\n", {}, "csv.header_duplicate"),
        (b"id,name,nmae\n", {}, "csv.header_unknown"),
        (b"id,amount\n", {}, "csv.header_missing"),
        (b"name\n", {}, "csv.header_missing"),
        (b'"id,name\n1,2\n', {}, "csv.header_invalid"),
        (b"i\xffd,name\n1,2\n", {}, "csv.header_invalid"),
        (",".join(f"c{n}" for n in range(5000)).encode() + b"\n", {}, "csv.too_many_columns"),
        (b"id,name\n", {"mapping": {"nothing": "id"}}, "csv.header_missing"),
        (b"id,name\n", {"mapping": {"name": "nom"}}, "csv.mapping_invalid"),
        (b"id,name\n", {"mapping": {"name": "id"}}, "csv.header_duplicate"),
        (b"id,name\n", {"compression": "gzip"}, "source.corrupt"),
        (gzip.compress(b"id,name\n" + b"1,a\n" * 100, mtime=0)[:-10], {}, "source.corrupt"),
    ],
)
def test_a_file_that_cannot_be_imported_fails_with_its_reason(
    imports: Importing, body: bytes, config: dict[str, Any], code: str
) -> None:
    error = refused(imports, body, **config)

    assert error.code == code
    assert imports.rows("SELECT count(*) FROM t_default.things") == [(0,)]


@pytest.mark.feature("S4-112")
def test_an_unknown_header_is_named_with_the_nearest_column(imports: Importing) -> None:
    error = refused(imports, "id,nmae\n")

    assert "'nmae' (field 2)" in error.detail
    assert "'name'" in (error.hint or "")


@pytest.mark.feature("S4-112")
def test_all_unknown_headers_are_named(imports: Importing) -> None:
    error = refused(imports, "id,nmae,name,city," + ",".join(f"c{n}" for n in range(12)) + "\n")

    assert "header 'nmae' (field 2) is no column of table 'things'; nor are 'city', 'c0'," in error.detail
    assert error.detail.endswith("'c8' and 3 more")
    assert error.data["headers"] == ["nmae", "city", *(f"c{n}" for n in range(12))]


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"id;name\n1;a\n", "is the delimiter ';'?"),
        (b"1,Ada\n2,Bob\n", "is imported with header: false"),
    ],
    ids=["delimiter", "no header"],
)
def test_a_header_that_is_none_tells_what_it_may_be(imports: Importing, body: bytes, hint: str) -> None:
    error = refused(imports, body)

    assert (error.code, hint in (error.hint or "")) == ("csv.header_unknown", True)


@pytest.mark.feature("S4-113")
@pytest.mark.parametrize(
    ("body", "config", "said"),
    [
        ("id,straße\n".encode("latin-1"), {}, "expected utf-8 text, got the byte 0xdf at 7 bytes into it"),
        ("id,name\n1,a\n".encode("utf-16-le"), {}, "expected utf-8 text, got a NUL character"),
        (b"\xff\xfei\0d\0,\0\x00\xd8\n\0", {"encoding": "utf-16"}, "got the byte 0x00 at 6 bytes into it"),
    ],
    ids=["latin-1", "utf-16 without a mark", "half of a pair"],
)
def test_a_header_in_another_encoding_is_told_by_its_byte(
    imports: Importing, body: bytes, config: dict[str, Any], said: str
) -> None:
    error = refused(imports, body, **config)

    assert (error.code, said in error.detail) == ("csv.header_invalid", True)
    assert error.hint == "Set encoding in the config to what the file is in: utf-8, latin-1 or utf-16."


def test_a_header_alone_completes_with_outcome_empty(imports: Importing) -> None:
    result = imports.load("id,name\n", table="things")

    assert result.outcome is Outcome.EMPTY
    assert result.data["books"]["read"] == 0


def test_a_gzip_bomb_stops_early(imports: Importing) -> None:
    bomb = gzip.compress(b"id,name\n1,a\n2," + b"0" * (64 * 2**20))

    error = refused(imports, bomb)

    assert error.code == "source.bomb"


def test_a_megabyte_field_fits_and_a_longer_one_does_not(imports: Importing) -> None:
    limit = imports.settings.max_field_bytes
    body = f"id,name,tags\n1,a,{'x' * limit}\n2,b,{'x' * (limit + 1)}\n3,c,d\n"

    result = imports.load(body, table="things")

    assert books(result)["failed"] >= 1
    assert [code for _, code, *_ in imports.ledger() if code.startswith("csv")] == ["csv.field_too_long"]
    assert imports.rows("SELECT id FROM t_default.things WHERE id <> 1") == [(3,)]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"table": "nothing"}, NotFoundError),
        ({"s3_bucket": "elsewhere"}, ForbiddenError),
        ({"key": ["name"]}, InvalidRequestError),
        ({"s3_key": "uploads/nothing.csv"}, JobError),
    ],
)
def test_what_the_config_names_must_exist_and_be_allowed(
    imports: Importing, config: dict[str, Any], kind: type[HaulierError]
) -> None:
    assert isinstance(refused(imports, "id,name\n", **config), kind)


def test_a_key_is_made_of_the_named_columns_when_the_file_brings_none(imports: Importing) -> None:
    imports.load("first_name,last_name\nAnn,Lee\nAnn,Lee\n,\n")

    assert imports.rows("SELECT uuid FROM t_default.contacts") == [(uuid5(KEY_NAMESPACE, "Ann\x1fLee\x1f"),)]
    assert [(line, code) for line, code, *_ in imports.ledger()] == [(4, "value.required")]


@pytest.mark.feature("S4-24")
def test_keys_that_postgres_finds_equal_are_one_row(imports: Importing) -> None:
    body = (
        "uuid,first_name\n123E4567-E89B-12D3-A456-426614174000,a\n{123e4567e89b12d3a456426614174000},b\n"
        "123e4567-e89b-12d3-a456-426614174000,c\n"
    )

    result = imports.load(body, lanes=4)

    assert books(result) == {"read": 3, "loaded": 1, "superseded": 2}
    assert imports.rows("SELECT first_name FROM t_default.contacts") == [("c",)]


def test_a_table_keyed_by_a_number_with_a_point_is_loaded_too(imports: Importing) -> None:
    table = Table("rates", (Column("rate", ColumnType.NUMERIC), Column("n", ColumnType.TEXT)), ("rate",))
    Tables(imports.sessions).declare("default", table)

    result = imports.load("rate,n\n1.0,a\n1.00,b\n2,c\n", table="rates", lanes=3)

    assert books(result) == {"read": 3, "loaded": 2, "superseded": 1}
    assert imports.rows("SELECT n FROM t_default.rates ORDER BY rate") == [("b",), ("c",)]


def test_too_many_bad_rows_pause_the_job_with_what_is_in_committed(imports: Importing) -> None:
    body = "id,name\n" + "".join(f"{number if number % 3 == 0 else 'x'},n\n" for number in range(300))
    job_id = imports.submit(body, table="things", batch_rows=10)
    context = imports.context(job_id, error_budget_after_rows=50)

    with pytest.raises(JobPaused, match="were refused"):
        imports.run(context)

    handled, failed = imports.rows("SELECT rows_done, error_count FROM jobs WHERE id = :id", id=job_id)[0]
    assert 50 <= handled < 300
    assert imports.rows("SELECT count(*) FROM failed_records") == [(failed,)]

    result = imports.run(imports.context(job_id, error_budget_rate=1.0))

    assert books(result) == {"read": 300, "loaded": 100, "failed": 200}


def test_max_errors_pauses_at_once(imports: Importing) -> None:
    with pytest.raises(JobPaused):
        imports.load("id,name\n" + "x,n\n" * 10, table="things", max_errors=5, batch_rows=2)

    assert 6 <= len(imports.ledger()) <= 10


def test_the_ledger_keeps_the_text_of_the_first_rows_only(imports: Importing) -> None:
    imports.load("id,name\n" + "x,n\n" * 10, table="things", batch_rows=2, settings={"ledger_raw_rows": 3})

    assert [raw for *_, raw in imports.ledger()] == ["x,n"] * 3 + [None] * 7


@pytest.mark.feature("S0-14")
def test_progress_counts_every_record_once_and_bytes_to_the_end(imports: Importing) -> None:
    body = "id,name\n" + "".join(f"{number if number % 5 else 'x'},n\n" for number in range(100)) + "\n"
    job_id = imports.submit(body, table="things", batch_rows=7)

    imports.run(imports.context(job_id))

    row = imports.rows("SELECT rows_done, rows_total, bytes_done, bytes_total, error_count, counters FROM jobs")[0]
    assert row[:5] == (101, 101, len(body), len(body), 20)
    assert row[5] == {
        "read": 101,
        "loaded": 80,
        "updated": 0,
        "unchanged": 0,
        "superseded": 0,
        "skipped": 1,
        "failed": 20,
    }


def test_an_object_that_is_replaced_before_the_job_goes_on_is_refused(imports: Importing) -> None:
    job_id = imports.submit("id,name\n" + "1,n\n" * 50, table="things", batch_rows=5)
    context = imports.context(job_id)
    stop_after(context, commits=4)
    with pytest.raises(Killed):
        imports.run(context)
    imports.put("id,name\n2,m\n", name=context.job.config["s3_key"])

    with pytest.raises(JobError) as raised:
        imports.run(imports.context(job_id))

    assert raised.value.code == "s3.changed"


class Killed(Exception):  # noqa: N818 - it is a signal
    """What stands for kill -9 in a test: raised inside a batch's transaction, so nothing of it is left."""


def stop_after(context: Any, *, commits: int) -> None:
    """Let the guarded write number ``commits`` + 1 of this run fail, and every later one."""
    left = [commits]

    def heed(signals: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    context.heed = heed


MESSY = "id,name,amount,note\n" + "".join(
    ("x,bad,1,\n", f"{n % 11},n{n},{n},\n", f'{n % 7},m{n},,"two\nlines"\n', f"{n},o{n},1e999999,\n", "\n", f"{n},p\n")[
        n % 6
    ]
    for n in range(120)
)


@pytest.mark.feature("S2-97")
@pytest.mark.parametrize(("commits", "packed"), [(1, False), (2, True), (3, False), (8, True), (13, False)])
def test_killed_between_any_batches_it_ends_as_if_undisturbed(imports: Importing, commits: int, packed: bool) -> None:
    body = gzip.compress(MESSY.encode()) if packed else MESSY.encode()
    whole = imports.submit(body, table="things", batch_rows=10, lanes=3)
    undisturbed = imports.run(imports.context(whole))
    expected = state(imports, whole)
    imports.rows("DELETE FROM t_default.things RETURNING id")
    killed = imports.submit(body, table="things", batch_rows=10, lanes=3)

    runs = 0
    while True:
        context = imports.context(killed, batch_rows=3, lanes=1)
        stop_after(context, commits=commits)
        runs += 1
        try:
            result = imports.run(context)
            break
        except Killed:
            assert runs < 60

    assert runs > 1
    assert state(imports, killed) == expected
    assert result.data["books"] == undisturbed.data["books"]


@pytest.mark.feature("S4-22")
@pytest.mark.parametrize("commits", [1, 2, 7])
def test_batches_that_end_by_their_bytes_end_there_again_when_it_was_killed(imports: Importing, commits: int) -> None:
    whole = imports.submit(MESSY, table="things", batch_rows=10, lanes=3)
    imports.run(imports.context(whole, max_batch_bytes=80))
    expected = state(imports, whole)
    imports.rows("DELETE FROM t_default.things RETURNING id")
    killed = imports.submit(MESSY, table="things", batch_rows=10, lanes=3)

    for run in range(60):
        context = imports.context(killed, max_batch_bytes=20 if run else 80)
        stop_after(context, commits=commits)
        with suppress(Killed):
            imports.run(context)
            break

    assert run > 0
    assert state(imports, killed) == expected
    sizes = imports.rows(
        "SELECT end_byte - first_byte FROM import_batches WHERE job_id = :id AND lane = 0 ORDER BY batch", id=killed
    )
    assert min(sizes[:-1])[0] >= 80
    assert max(sizes)[0] < 80 + max(map(len, MESSY.splitlines(keepends=True)))


@pytest.mark.parametrize("rows", [1, 9, 10, 41])
def test_killed_behind_a_last_batch_that_is_not_full_its_books_close(
    imports: Importing, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    body = "id,name\n" + "".join(f"{n},n{n}\n" for n in range(rows))
    killed = imports.submit(body, table="things", batch_rows=10)

    def dying(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(importer.books, "close", dying)
        with pytest.raises(Killed):
            imports.run(imports.context(killed))

    result = imports.run(imports.context(killed))

    assert books(result) == {"read": rows, "loaded": rows}


def state(imports: Importing, job_id: Any) -> list[Any]:
    return [
        imports.rows("SELECT id, name, amount, note FROM t_default.things ORDER BY id"),
        imports.ledger(job_id),
        imports.rows(
            "SELECT batch, lane, first_line, last_line, first_byte, end_byte, counts FROM import_batches "
            "WHERE job_id = :id ORDER BY 1, 2",
            id=job_id,
        ),
        imports.rows("SELECT rows_done, bytes_done, error_count, counters FROM jobs WHERE id = :id", id=job_id),
    ]


def test_books_that_do_not_balance_fail_the_job(imports: Importing) -> None:
    job_id = imports.submit("id,name\n" + "".join(f"{n},n\n" for n in range(50)), table="things", batch_rows=5)
    context = imports.context(job_id)
    stop_after(context, commits=9)
    with pytest.raises(Killed):
        imports.run(context)
    imports.rows("DELETE FROM import_batches WHERE batch = 1 AND lane = 1 RETURNING 1")

    with pytest.raises(JobError) as raised:
        imports.run(imports.context(job_id))

    assert raised.value.code == "import.books_do_not_balance"
    assert "lane 1, batch 2 begins at" in raised.value.detail


@budget(max_examples=25)
@given(
    st.lists(
        st.sampled_from(
            [
                b"1",
                b"2",
                b"a",
                b",",
                b",",
                b"\n",
                b"\n",
                b"\r\n",
                b'"',
                b"\x00",
                b"\xff",
                b"\\",
                b"3,x,1\n",
                b"4,y,2\n",
                b"\t",
            ]
        ),
        max_size=40,
    ).map(b"".join)
)
def test_any_bytes_after_the_header_balance(imports: Importing, body: bytes) -> None:
    result = imports.load(b"id,name,amount\n" + body, table="things", batch_rows=3)

    counted = result.data["books"]
    assert counted["read"] == sum(counted.values()) - counted["read"]


def test_two_jobs_on_the_same_rows_both_end(imports: Importing) -> None:
    body = "id,name\n" + "".join(f"{n % 500},n{n}\n" for n in range(4000))
    contexts = [imports.context(imports.submit(body, table="things", batch_rows=100)) for _ in range(3)]

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(imports.run, contexts))

    assert [result.data["books"]["read"] for result in results] == [4000] * 3
    assert imports.rows("SELECT count(*) FROM t_default.things") == [(500,)]


def test_a_tenant_reads_below_its_own_prefix_and_writes_its_own_table(
    settings: Settings, sessions: Sessions, objects: ObjectStore
) -> None:
    theirs = Importing(settings, sessions, objects, tenant="acme")
    sessions_rows = theirs.rows("INSERT INTO tenants (name) VALUES ('acme') RETURNING name")
    objects.put(ObjectRef(settings.s3_bucket, "t/acme/in.csv"), b"first_name\nAnn\n", content_type="text/csv")

    result = theirs.load("unused", s3_key="in.csv")

    assert sessions_rows == [("acme",)]
    assert books(result) == {"read": 1, "loaded": 1}
    assert theirs.rows("SELECT first_name FROM t_acme.contacts") == [("Ann",)]
