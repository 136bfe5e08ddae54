from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import text

from app.dataplane import tables as real
from app.domain.errors import ConflictError, HaulierError, InvalidRequestError, NotFoundError
from app.domain.tables import BUILT_IN, Column, ColumnType, Index, Table
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from config.settings import Settings

ORDERS = Table(
    name="order",  # a word that SQL keeps for itself
    columns=(
        Column("number", ColumnType.BIGINT),
        Column("user", ColumnType.TEXT, required=True),
        Column("labels", ColumnType.TEXT_ARRAY),
    ),
    key=("number",),
    indexes=(Index(("user",)), Index(("labels",)), Index(("user",), trigram=True)),
)


@pytest.fixture
def tables(settings: Settings, sessions: Sessions) -> Tables:
    return Tables(sessions)


def test_a_declared_table_is_made_with_system_columns_key_and_indexes(tables: Tables) -> None:
    tables.declare("default", ORDERS)

    described = tables.describe("default", "order")
    assert described.table == ORDERS
    assert described.existing.columns == {
        "number": "bigint",
        "user": "text",
        "labels": "text[]",
        "haulier_created_at": "timestamp with time zone",
        "haulier_updated_at": "timestamp with time zone",
        "haulier_job_id": "uuid",
    }
    assert described.existing.indexes == ("order_labels_idx", "order_user_idx", "order_user_trgm")
    assert described.existing.estimated_rows == 0


def test_the_same_declaration_again_changes_nothing(tables: Tables) -> None:
    tables.declare("default", ORDERS)

    assert tables.declare("default", ORDERS) == ORDERS


def test_a_higher_version_adds_columns_and_exchanges_indexes_and_keeps_rows(tables: Tables, sessions: Sessions) -> None:
    tables.declare("default", ORDERS)
    with sessions.begin() as session:
        session.execute(text('INSERT INTO t_default."order" (number, "user") VALUES (1, \'ann\')'))
    later = replace(
        ORDERS,
        columns=(*ORDERS.columns, Column("paid", ColumnType.BOOLEAN)),
        indexes=(Index(("paid",)), Index(("labels",))),
        version=2,
    )

    tables.declare("default", later)

    described = tables.describe("default", "order")
    assert "paid" in described.existing.columns
    assert described.existing.indexes == ("order_labels_idx",)
    assert described.missing_indexes == ["order_paid_idx"]
    with sessions.begin() as session:
        assert session.execute(text('SELECT number FROM t_default."order"')).scalar_one() == 1
        builders = session.execute(text("SELECT type, config, origin FROM jobs")).all()
    assert builders == [("reconcile_indexes", {"table": "order"}, "system")]


def test_a_higher_version_widens_columns_and_keeps_their_values_and_indexes(tables: Tables, sessions: Sessions) -> None:
    narrow = Table(
        "widths",
        (Column("id", ColumnType.INTEGER), Column("amount", ColumnType.BIGINT), Column("day", ColumnType.DATE)),
        ("id",),
        (Index(("amount",)),),
    )
    wide = replace(
        narrow,
        columns=(Column("id", ColumnType.BIGINT), Column("amount", ColumnType.NUMERIC), Column("day", ColumnType.TEXT)),
        version=2,
    )
    tables.declare("default", narrow)
    with sessions.begin() as session:
        session.execute(text("INSERT INTO t_default.widths VALUES (1, 9007199254740993, '2024-02-29')"))

    tables.declare("default", wide)

    described = tables.describe("default", "widths").existing
    assert [described.columns[name] for name in ("id", "amount", "day")] == ["bigint", "numeric", "text"]
    assert described.indexes == ("widths_amount_idx",)
    with sessions.begin() as session:
        kept = session.execute(text("SELECT id, amount::text, day FROM t_default.widths")).one()
    assert tuple(kept) == (1, "9007199254740993", "2024-02-29")


def test_a_change_that_drops_an_index_does_not_wait_for_who_reads_the_table(
    tables: Tables, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real, "_PATIENCE", "SET LOCAL lock_timeout = '50ms'")
    tables.declare("default", ORDERS)
    with sessions.begin() as session:
        session.execute(text('LOCK TABLE t_default."order" IN ACCESS SHARE MODE'))

        with pytest.raises(ConflictError) as raised:
            tables.declare("default", replace(ORDERS, indexes=(), version=2))

    assert raised.value.code == "table.in_use"
    assert len(tables.describe("default", "order").existing.indexes) == 3


def test_a_table_that_is_in_use_is_not_waited_for(
    tables: Tables, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real, "_PATIENCE", "SET LOCAL lock_timeout = '50ms'")
    tables.declare("default", ORDERS)
    wide = replace(ORDERS, columns=(*ORDERS.columns, Column("paid", ColumnType.BOOLEAN)), version=2)
    with sessions.begin() as session:
        session.execute(text('LOCK TABLE t_default."order" IN ROW EXCLUSIVE MODE'))

        with pytest.raises(ConflictError) as raised:
            tables.declare("default", wide)

    assert raised.value.code == "table.in_use"
    assert tables.get("default", "order") == ORDERS


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (replace(ORDERS, indexes=()), "table.version_conflict"),
        (replace(ORDERS, key=("user",), version=2), "table.change_unsupported"),
        (replace(ORDERS, columns=ORDERS.columns[:2], indexes=(), version=2), "table.change_unsupported"),
        (
            replace(ORDERS, columns=(Column("number", ColumnType.INTEGER), *ORDERS.columns[1:]), version=2),
            "table.change_unsupported",
        ),
        (replace(ORDERS, name="contacts"), "table.built_in"),
        (replace(ORDERS, name="a_b", columns=(*ORDERS.columns, Column("c", ColumnType.TEXT)), indexes=()), ""),
    ],
)
def test_changes_that_would_lose_something_are_refused(tables: Tables, changed: Table, code: str) -> None:
    tables.declare("default", ORDERS)

    if not code:
        assert tables.declare("default", changed) == changed
        return
    with pytest.raises(ConflictError) as raised:
        tables.declare("default", changed)

    assert raised.value.code == code


def test_two_tables_whose_indexes_would_share_a_name_are_refused(tables: Tables) -> None:
    column = Column("x", ColumnType.TEXT)
    tables.declare("default", Table("a", (column, Column("b_c", ColumnType.TEXT)), ("x",), (Index(("b_c",)),)))

    with pytest.raises(ConflictError) as raised:
        tables.declare("default", Table("a_b", (column, Column("c", ColumnType.TEXT)), ("x",), (Index(("c",)),)))

    assert raised.value.code == "table.index_name_taken"


def test_an_index_that_is_not_built_yet_has_its_name_already(tables: Tables) -> None:
    column = Column("x", ColumnType.TEXT)
    first = Table("a", (column, Column("b_c", ColumnType.TEXT)), ("x",))
    second = Table("a_b", (column, Column("c", ColumnType.TEXT)), ("x",))
    for table in (first, second):
        tables.declare("default", table)
    tables.declare("default", replace(first, indexes=(Index(("b_c",)),), version=2))

    with pytest.raises(ConflictError) as raised:
        tables.declare("default", replace(second, indexes=(Index(("c",)),), version=2))

    assert raised.value.code == "table.index_name_taken"


@pytest.mark.parametrize(
    ("table", "pointer"),
    [
        (replace(ORDERS, name="Robert'); DROP TABLE jobs"), "/name"),
        (replace(ORDERS, key=("labels",)), "/key/0"),
        (replace(ORDERS, key=("number", "number")), "/key"),
        (replace(ORDERS, indexes=(Index(("labels", "user")),)), "/indexes/0/columns"),
        (replace(ORDERS, indexes=(Index(("user",)), Index(("user",)))), "/indexes/1"),
        (replace(ORDERS, indexes=(Index(("number",), trigram=True),)), "/indexes/0/trigram"),
        (replace(ORDERS, generated_key=("user",)), "/generated_key"),
        (replace(ORDERS, aliases={"nr": "nothing"}), "/aliases/nr"),
        (replace(ORDERS, version=0), "/version"),
        (replace(ORDERS, columns=(Column("number", ColumnType.BIGINT, max_length=3),), indexes=()), "/columns/0"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_with_a_pointer(tables: Tables, table: Table, pointer: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        tables.declare("default", table)

    assert pointer in [problem.pointer for problem in raised.value.problems]


def test_built_in_tables_are_there_at_their_first_use_by_many_at_once(tables: Tables) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: tables.get("default", name), ["contacts", "companies"] * 4))

    assert found == [BUILT_IN["contacts"], BUILT_IN["companies"]] * 4
    assert tables.describe("default", "contacts").existing.indexes == (
        "contacts_company_id_idx",
        "contacts_country_idx",
        "contacts_email_idx",
    )


def test_each_tenant_has_its_own_tables(tables: Tables, sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(text("INSERT INTO tenants (name) VALUES ('acme')"))
    tables.declare("acme", ORDERS)

    assert [table.name for table in tables.list("acme")] == ["companies", "contacts", "order"]
    with pytest.raises(NotFoundError, match="there are companies, contacts"):
        tables.get("default", "order")


def test_a_dropped_table_is_gone_and_built_in_ones_stay(tables: Tables) -> None:
    tables.declare("default", ORDERS)

    tables.drop("default", "order")

    for call, kind in (
        (lambda: tables.drop("default", "order"), NotFoundError),
        (lambda: tables.drop("default", "contacts"), ConflictError),
    ):
        with pytest.raises(kind):
            call()
    with pytest.raises(HaulierError):
        tables.describe("default", "order")
