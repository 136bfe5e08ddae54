"""Rows by query: what VQL finds, held against a plain Python reading of the rules; pages, counts, limits."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.dataplane.explaining import explain
from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.compiler import Statement, compile_select
from app.dataplane.vql.model import total_order
from app.dataplane.vql.parser import parse
from app.domain.errors import InvalidRequestError, MalformedRequestError, NotFoundError
from app.domain.tables import Column, ColumnType, Index, Table
from app.persistence.keys import add_tenant
from app.persistence.sessions import Sessions
from app.services.reading import Reading
from app.services.records import Records
from app.services.tables import Tables
from tests.integration.conftest import Client

THINGS = Table(
    "things",
    (
        Column("id", ColumnType.BIGINT),
        Column("name", ColumnType.TEXT),
        Column("tags", ColumnType.TEXT_ARRAY),
        Column("size", ColumnType.INTEGER),
        Column("price", ColumnType.NUMERIC),
        Column("live", ColumnType.BOOLEAN),
        Column("seen", ColumnType.TIMESTAMPTZ),
        Column("extra", ColumnType.JSON),
    ),
    key=("id",),
    indexes=(Index(("name",), trigram=True), Index(("name",), words=True), Index(("size",))),
)
WORDS = ("red", "green", "blue", "Red", "cafe", "r%d", "gr_en")
NAMES = (None, "", *WORDS, *(f"{first} {second}" for first in WORDS for second in ("red", "x blue", "a b green")))
TAGS = (None, (), ("red",), ("red", "green"), ("Blue sky", "x"), ("green blue red",))
SIZES = (None, -1, 0, 1, 2, 2**31 - 1)
ROWS = [
    {
        "id": number,
        "name": NAMES[number % len(NAMES)],
        "tags": None if (tags := TAGS[number % len(TAGS)]) is None else list(tags),
        "size": SIZES[number * 7 % len(SIZES)],
        "price": None if number % 5 == 0 else f"{number}.50",
        "live": (None, True, False)[number % 3],
        "seen": None if number % 4 == 0 else f"2026-01-{number % 28 + 1:02}T00:00:00+00:00",
        "extra": {"n": number} if number % 2 else None,
    }
    for number in range(1, 61)
]


@pytest.fixture
def tables(sessions: Sessions) -> Tables:
    with sessions.begin() as session:
        for tenant in ("acme", "other"):
            add_tenant(session, tenant)
    return Tables(sessions)


@pytest.fixture
def records(sessions: Sessions, tables: Tables) -> Records:
    return Records(tables, Reading(sessions, timeout_s=30))


@pytest.fixture
def things(sessions: Sessions, tables: Tables) -> Iterator[Table]:
    table = tables.declare("acme", THINGS)
    insert(sessions, "acme", "things", ROWS)
    return table


def insert(sessions: Sessions, tenant: str, table: str, rows: list[dict[str, Any]]) -> None:
    target = f'"t_{tenant}"."{table}"'
    stamps = {"haulier_created_at": "2026-01-01", "haulier_updated_at": "2026-01-01"}
    with sessions.begin() as session:
        session.execute(
            text(
                f"INSERT INTO {target} "
                f"SELECT * FROM jsonb_populate_recordset(CAST(NULL AS {target}), CAST(:rows AS jsonb))"
            ),
            {"rows": json.dumps([row | stamps for row in rows])},
        )


def found(records: Records, where: Mapping[str, Any], **more: Any) -> list[int]:
    page = records.query("acme", "things", {"where": where, "select_columns": ["id"], **more}, limit=1000)
    return [row["id"] for row in page.rows]


# The rules again, in Python


def words_of(value: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", value.lower())


def texts_of(row: Mapping[str, Any], key: str) -> list[str]:
    value = row[key]
    return [] if value is None else value if isinstance(value, list) else [value]


def in_order(wanted: list[str], words: list[str], slop: int) -> bool:
    def match(position: int, rest: list[str], left: int) -> bool:
        return not rest or any(
            position + gap < len(words)
            and words[position + gap] == rest[0]
            and match(position + gap + 1, rest[1:], left - gap)
            for gap in range(left + 1)
        )

    return any(words[start] == wanted[0] and match(start + 1, wanted[1:], slop) for start in range(len(words)))


def text_found(row: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    values = texts_of(row, item["filter_key"])
    if item["search_type"] == "substring":
        return any(item["text_value"].lower() in value.lower() for value in values)
    wanted = words_of(item["text_value"])
    if item["search_type"] == "exact":
        return any(in_order(wanted, words_of(value), item.get("slop", 0)) for value in values)
    joint = all if item.get("operator", "or") == "and" else any
    return any(joint(word in words_of(value) for word in wanted) for value in values)


def keyword_found(row: Mapping[str, Any], key: str, wanted: Any) -> bool:
    values = wanted if isinstance(wanted, list) else [wanted]
    value = row[key]
    if isinstance(value, list):
        return bool(set(value) & set(values)) or (None in values and not value)
    return value in values


def range_found(row: Mapping[str, Any], key: str, bounds: Mapping[str, Any]) -> bool:
    value = row[key]
    if value is None:
        return False
    number = float(value) if key == "price" else value
    tests = {"gte": number.__ge__, "lte": number.__le__, "gt": number.__gt__, "lt": number.__lt__}
    return all(_true(tests[word](bound), number, word, bound) for word, bound in bounds.items())


def _true(said: Any, number: Any, word: str, bound: Any) -> bool:
    if said is NotImplemented:
        return {"gte": number >= bound, "lte": number <= bound, "gt": number > bound, "lt": number < bound}[word]
    return bool(said)


def expected(where: Mapping[str, Any]) -> list[int]:
    keyword, texts, ranges = (where.get(name, {}) for name in ("keyword_match", "text_matches", "range_query"))

    def meets(row: Mapping[str, Any]) -> bool:
        by_key: dict[str, list[bool]] = {}
        for item in texts.get("must", []):
            by_key.setdefault(item["filter_key"], []).append(text_found(row, item))
        return (
            all(keyword_found(row, key, wanted) for key, wanted in keyword.get("must", {}).items())
            and not any(keyword_found(row, key, wanted) for key, wanted in keyword.get("must_not", {}).items())
            and all(any(group) for group in by_key.values())
            and not any(text_found(row, item) for item in texts.get("must_not", []))
            and all(range_found(row, key, bounds) for key, bounds in ranges.get("must", {}).items())
            and not any(range_found(row, key, bounds) for key, bounds in ranges.get("must_not", {}).items())
        )

    return [row["id"] for row in ROWS if meets(row)]


_KEYWORDS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(NAMES) | st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
        "tags": st.sampled_from(["red", "green", None]) | st.lists(st.sampled_from(["x", "red", "none"]), min_size=1),
        "size": st.sampled_from(SIZES) | st.lists(st.sampled_from(SIZES), min_size=1, max_size=3),
        "live": st.sampled_from([None, True, False]),
    },
)
_TEXTS = st.lists(
    st.fixed_dictionaries(
        {
            "text_value": st.sampled_from(["red", "RED", "red blue", "blue red", "x blue", "cafe a green", "a b"]),
            "filter_key": st.sampled_from(["name", "tags"]),
            "search_type": st.sampled_from(["exact", "shuffle", "substring"]),
        },
        optional={"slop": st.integers(0, 3), "operator": st.sampled_from(["and", "or"])},
    )
    | st.fixed_dictionaries(
        {
            "text_value": st.sampled_from(["%", "_", "\\", "r%d", "R", "en b", "'", "''"]),
            "filter_key": st.just("name"),
            "search_type": st.just("substring"),
        }
    ),
    max_size=3,
)
_RANGES = st.fixed_dictionaries(
    {},
    optional={
        "size": st.dictionaries(
            st.sampled_from(["gte", "lte", "gt", "lt"]), st.integers(-2, 3) | st.just(0.5), min_size=1
        ),
        "price": st.dictionaries(st.sampled_from(["gte", "lt"]), st.sampled_from([7.5, 20, 41.25]), min_size=1),
        "seen": st.dictionaries(
            st.sampled_from(["gt", "lte"]), st.just("2026-01-10T00:00:00+00:00"), min_size=1, max_size=1
        ),
    },
)
_WHERE = st.fixed_dictionaries(
    {},
    optional={
        "keyword_match": st.fixed_dictionaries({}, optional={"must": _KEYWORDS, "must_not": _KEYWORDS}),
        "text_matches": st.fixed_dictionaries({}, optional={"must": _TEXTS, "must_not": _TEXTS}),
        "range_query": st.fixed_dictionaries({}, optional={"must": _RANGES, "must_not": _RANGES}),
    },
)


@pytest.mark.feature("S4-31", "S4-89", "S4-90", "S4-91", "S4-92")
@given(where=_WHERE)
@property_settings(max_examples=100)
def test_a_query_finds_what_its_rules_say(records: Records, things: Table, where: dict[str, Any]) -> None:
    assert found(records, where) == expected(where)
    assert records.count("acme", "things", {"where": where}) == len(expected(where))


_ORDERABLE = ("id", "name", "size", "price", "live", "seen")


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_pages_ordered_by_a_column_that_may_be_missing_are_ranges_of_its_index(
    sessions: Sessions, things: Table, direction: str
) -> None:
    order = [{"order_by": "size", "order_direction": direction}]
    with sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO t_acme.things (id, size) "
                "SELECT n, CASE WHEN n % 10 > 0 THEN n END FROM generate_series(1000, 21000) AS n"
            )
        )
        session.execute(text("ANALYZE t_acme.things"))

        plans = [
            explain(session, _page(things, {"order_by": order, **after}), [])
            for after in ({}, {"search_after": [9_001, 9_001]}, {"search_after": [None, 9_000]})
        ]

    assert [plan.whole_tables for plan in plans] == [[], [], []]
    assert [step.rows for plan in plans for step in plan.steps if step.does == "Sort" and step.rows > 60] == []
    assert "things_size_idx" in plans[0].indexes


def _page(table: Table, vql: dict[str, Any]) -> Statement:
    catalogue = Catalogue(table)
    query = parse(vql, catalogue)
    order = total_order(query.order, catalogue.key_fields())
    return compile_select(query, table.name, lambda name: f"t_acme.{name}", columns=["m.id"], order=order, limit=26)


@pytest.mark.feature("S4-34", "S4-36", "S4-38")
@given(
    terms=st.lists(st.tuples(st.sampled_from(_ORDERABLE), st.booleans()), max_size=3, unique_by=lambda term: term[0]),
    limit=st.integers(7, 31),
)
@property_settings(max_examples=60)
def test_pages_of_any_order_hold_every_row_once_missing_values_last(
    records: Records, things: Table, terms: list[tuple[str, bool]], limit: int
) -> None:
    order = [{"order_by": name, "order_direction": "desc" if down else "asc"} for name, down in terms]
    seen: list[dict[str, Any]] = []
    cursor = None

    while True:
        page = records.query("acme", "things", {"order_by": order}, limit=limit, cursor=cursor)
        seen += page.rows
        cursor = page.next_cursor
        if cursor is None:
            break

    assert sorted(row["id"] for row in seen) == [row["id"] for row in ROWS]
    whole = records.query("acme", "things", {"order_by": order}, limit=1000)
    assert seen == whole.rows
    if terms:
        values = [row[terms[0][0]] for row in seen]
        present = [value for value in values if value is not None]
        assert values == present + [None] * (len(values) - len(present))


@pytest.mark.feature("S4-38")
def test_rows_that_come_between_pages_leave_none_out_and_show_none_twice(
    records: Records, sessions: Sessions, things: Table
) -> None:
    seen: list[int] = []
    cursor = None

    for number in itertools.count(1):
        page = records.query("acme", "things", {"order_by": [{"order_by": "size"}]}, limit=7, cursor=cursor)
        seen += [row["id"] for row in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            break
        with sessions.begin() as session:  # a row before the page that comes next, and one behind it
            insert = text("INSERT INTO t_acme.things (id, size) VALUES (:id, -10), (:id + 1, 10)")
            session.execute(insert, {"id": 1_000 + 2 * number})

    assert len(seen) == len(set(seen))
    assert {row["id"] for row in ROWS} <= set(seen)


def test_a_row_comes_back_as_json_with_every_digit(records: Records, sessions: Sessions, tables: Tables) -> None:
    tables.declare("acme", THINGS)
    row = ROWS[0] | {"price": "12345678901234567890.123456789012345678", "name": "naïve \"q\" 'x'", "extra": {"a": [1]}}
    insert(sessions, "acme", "things", [row])

    page = records.query("acme", "things", {})

    assert page.rows == [row]
    assert list(page.rows[0]) == list(THINGS.column_names)
    assert page.next_cursor is None


def test_a_fuzzy_search_forgives_typing_errors_and_not_other_words(
    records: Records, sessions: Sessions, tables: Tables
) -> None:
    tables.declare("acme", THINGS)
    titles = {1: "Software Engineer", 2: "Sales Director", 3: "Engineering Manager", 4: "Nurse"}
    insert(sessions, "acme", "things", [ROWS[0] | {"id": key, "name": title} for key, title in titles.items()])

    def search(value: str, operator: str) -> list[int]:
        item = {
            "text_value": value,
            "filter_key": "name",
            "search_type": "shuffle",
            "fuzzy": True,
            "operator": operator,
        }
        return found(records, {"text_matches": {"must": [item]}})

    assert search("sofware enginer", "and") == [1]
    assert search("Enginer nurse", "or") == [1, 3, 4]
    assert search("plumber", "or") == []


@given(
    word=st.text("abcdeABC12", min_size=3, max_size=9),
    texts=st.lists(st.text("abcdeéA12 -./@'", max_size=40), max_size=30),
)
@property_settings(max_examples=60, derandomize=True)
def test_what_a_fuzzy_search_looks_up_first_leaves_no_similar_word_out(
    sessions: Sessions, word: str, texts: list[str]
) -> None:
    statement = """
        SELECT t FROM unnest(CAST(:texts AS text[])) AS t
        WHERE EXISTS (SELECT FROM unnest(tsvector_to_array(to_tsvector('simple', t))) AS w (word)
                      WHERE similarity(w.word, :word) >= 0.4)
        AND NOT :word <<% t
    """

    # A number that letters stick to (1.5kg) is a word of its own for the one, and part of one for the other.
    plain = [one for one in (*texts, f"x {word}s y") if not re.search("[0-9][a-zé]", one.lower())]
    with sessions.begin() as session:
        left_out = session.execute(text(statement), {"texts": plain, "word": word}).scalars().all()

    assert left_out == []


def test_a_contact_is_found_by_its_companys_columns(records: Records, sessions: Sessions, tables: Tables) -> None:
    tables.get("acme", "contacts")
    tables.get("acme", "companies")
    big, small = UUID(int=1), UUID(int=2)
    insert(
        sessions,
        "acme",
        "companies",
        [
            {"uuid": str(big), "name": "Big Corp", "employees_count": 5000, "industries": ["Software", "SaaS"]},
            {"uuid": str(small), "name": "Small Ltd", "employees_count": 5, "industries": None},
        ],
    )
    companies = {10: big, 11: small, 12: None, 13: UUID(int=99)}
    insert(
        sessions,
        "acme",
        "contacts",
        [
            {"uuid": str(UUID(int=key)), "id": key, "company_id": company and str(company)}
            for key, company in companies.items()
        ],
    )

    def ids(where: dict[str, Any]) -> list[int]:
        page = records.query("acme", "contacts", {"where": where, "order_by": [{"order_by": "id"}]})
        return [row["id"] for row in page.rows]

    assert ids({"keyword_match": {"must": {"company_industries": ["SaaS"]}}}) == [10]
    assert ids({"range_query": {"must": {"company_employees_count": {"lt": 100}}}}) == [11]
    assert ids({"range_query": {"must_not": {"company_employees_count": {"lt": 100}}}}) == [10, 12, 13]
    assert ids({"keyword_match": {"must": {"company_industries": None}}}) == [11, 12, 13]
    item = {"text_value": "corp big", "filter_key": "company_name", "search_type": "shuffle", "operator": "and"}
    assert ids({"text_matches": {"must": [item]}}) == [10]
    assert ids({"text_matches": {"must_not": [item]}}) == [11, 12, 13]


def test_contacts_bring_their_company_along_when_asked(records: Records, sessions: Sessions, tables: Tables) -> None:
    tables.get("acme", "contacts")
    tables.get("acme", "companies")
    company = str(UUID(int=1))
    insert(sessions, "acme", "companies", [{"uuid": company, "name": "Big Corp", "country": "US"}])
    insert(
        sessions,
        "acme",
        "contacts",
        [{"uuid": str(UUID(int=1)), "company_id": company}, {"uuid": str(UUID(int=2)), "company_id": None}],
    )
    vql = {"company_config": {"populate": True, "select_columns": ["name"]}, "select_columns": ["uuid", "company_id"]}

    rows = records.query("acme", "contacts", vql).rows

    assert [row["company"] for row in rows] == [{"name": "Big Corp"}, None]
    with pytest.raises(InvalidRequestError):
        records.query("acme", "contacts", vql | {"select_columns": ["uuid"]})


def test_a_filter_on_companies_works_before_there_are_any(records: Records) -> None:
    assert records.count("acme", "contacts", {"where": {"keyword_match": {"must": {"company_country": "US"}}}}) == 0


@pytest.mark.feature("S4-36")
def test_search_after_and_cursor_take_the_last_rows_values(records: Records, things: Table) -> None:
    order = [{"order_by": "size", "order_direction": "desc"}]
    first = records.query("acme", "things", {"order_by": order, "limit": 5})
    rest = records.query("acme", "things", {"order_by": order}, limit=1000, cursor=first.next_cursor)

    by_values = records.query("acme", "things", {"order_by": order, "search_after": first.after}, limit=1000)
    as_text = [None if value is None else str(value) for value in first.after or []]
    by_text = records.query("acme", "things", {"order_by": order, "cursor": as_text}, limit=1000)

    assert len(first.rows) == 5
    assert rest.rows == by_values.rows == by_text.rows
    assert len(rest.rows) == len(ROWS) - 5


def test_numbered_pages_follow_one_another(records: Records, things: Table) -> None:
    pages = [records.query("acme", "things", {"limit": 25, "page": number}).rows for number in (1, 2, 3, 4)]

    assert [len(rows) for rows in pages] == [25, 25, 10, 0]
    assert [row["id"] for rows in pages for row in rows] == [row["id"] for row in ROWS]


@pytest.mark.parametrize(
    "change", [lambda c: c[:-6], lambda c: "%%%", lambda c: "", lambda c: "A" * 20_000, lambda c: "é"]
)
def test_a_broken_cursor_is_a_bad_request(records: Records, things: Table, change: Any) -> None:
    cursor = records.query("acme", "things", {}, limit=5).next_cursor

    with pytest.raises(MalformedRequestError) as error:
        records.query("acme", "things", {}, limit=5, cursor=change(cursor))

    assert error.value.code == "cursor.invalid"


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"order": [["id", False]]},
        {"order": [["id", False]], "after": "x"},
        {"order": [["id", False]], "after": []},
        {"order": [["id", False]], "after": ["1; DROP TABLE things"]},
        {"order": [["id", False]], "after": [None]},
        {"order": [["id", False]], "after": [[[1]]]},
        {"order": [["name", False], ["id", False]], "after": ["x", 1]},
    ],
)
def test_a_forged_cursor_is_a_bad_request(records: Records, things: Table, body: object) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(body).encode()).decode().rstrip("=")

    with pytest.raises(MalformedRequestError):
        records.query("acme", "things", {}, cursor=cursor)


def test_a_cursor_of_another_order_is_a_bad_request(records: Records, things: Table) -> None:
    cursor = records.query("acme", "things", {}, limit=5).next_cursor

    with pytest.raises(MalformedRequestError, match="another order"):
        records.query("acme", "things", {"order_by": [{"order_by": "name"}]}, cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_size_out_of_bounds_is_refused(records: Records, things: Table, limit: int) -> None:
    with pytest.raises(InvalidRequestError) as error:
        records.query("acme", "things", {}, limit=limit)

    assert error.value.problems[0].pointer == "/limit"


@pytest.mark.feature("S2-102")
def test_a_row_is_read_by_its_key(admin: Client) -> None:
    stock = [{"name": name, "type": kind} for name, kind in (("shop", "text"), ("day", "date"), ("price", "numeric"))]
    admin.post("/v1/tables", {"name": "stock", "columns": stock, "key": ["shop", "day"]})
    admin.post("/v1/tables", {"name": "shops", "columns": stock[:1], "key": ["shop"]})
    row = {"shop": "a/b, c", "day": "2026-01-31", "price": "1.10"}
    admin.post("/v1/tables/stock/records:upsert", {"rows": [row]})
    admin.post("/v1/tables/shops/records:upsert", {"rows": [{"shop": "a/b, c"}]})
    record_id = json.dumps(["a/b, c", "2026-01-31"])

    found = admin.get(f"/v1/tables/stock/records/{quote(record_id, safe='')}").get_json()
    single = admin.get(f"/v1/tables/shops/records/{quote('a/b, c', safe='')}").get_json()

    assert found["values"] | row == found["values"]
    assert (found["id"], found["valid"], found["messages"]) == (record_id, True, [])
    assert single["values"]["shop"] == "a/b, c"


@pytest.mark.parametrize(
    ("record_id", "said"),
    [
        ('["a", "2026-02-01"]', "has no row"),
        ('["a", "tomorrow"]', "day is a date such as"),
        ('["a"]', "a key of 2 columns"),
        ("a", "a JSON array of their values as text: shop, day"),
        ("[null, null]", "shop is text"),
    ],
)
def test_an_id_that_no_row_has_is_404_and_says_what_an_id_is(admin: Client, record_id: str, said: str) -> None:
    stock = [{"name": "shop", "type": "text"}, {"name": "day", "type": "date"}]
    admin.post("/v1/tables", {"name": "stock", "columns": stock, "key": ["shop", "day"]})

    answer = admin.get(f"/v1/tables/stock/records/{quote(record_id)}")

    assert (answer.status_code, answer.get_json()["code"]) == (404, "record.not_found")
    assert said in answer.get_json()["detail"]


def test_another_tenants_table_is_not_found(records: Records, things: Table) -> None:
    for call in (records.query, records.count):
        with pytest.raises(NotFoundError):
            call("other", "things", {})


def test_tenants_see_only_their_own_rows_of_a_built_in_table(
    records: Records, sessions: Sessions, tables: Tables
) -> None:
    tables.get("acme", "contacts")
    insert(sessions, "acme", "contacts", [{"uuid": str(UUID(int=1))}])

    assert records.count("acme", "contacts", {}) == 1
    assert records.count("other", "contacts", {}) == 0


def test_a_query_over_its_time_is_ended_and_says_what_to_do(sessions: Sessions, tables: Tables) -> None:
    hurried = Records(tables, Reading(sessions, timeout_s=0.05))
    tables.declare("acme", THINGS)
    with sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO t_acme.things (id, name) "
                "SELECT g, repeat('word ' || g, 20) FROM generate_series(1, 30000) AS g"
            )
        )
    item = {"text_value": "worda", "filter_key": "name", "search_type": "shuffle", "fuzzy": True}

    with pytest.raises(InvalidRequestError) as error:
        hurried.count("acme", "things", {"where": {"text_matches": {"must": [item]}}})

    assert error.value.code == "vql.timeout"
    assert "export" in str(error.value.hint)


@pytest.mark.parametrize(
    "evil", ["'; DROP TABLE t_acme.things; --", "\\'; --", "%' OR 1=1 --", ":v0", "%(v0)s", "$1", "E'"]
)
def test_injection_text_as_a_value_is_only_a_value(records: Records, things: Table, evil: str) -> None:
    where = {
        "keyword_match": {"must_not": {"name": evil, "tags": [evil]}},
        "text_matches": {
            "must_not": [{"text_value": evil, "filter_key": "name", "search_type": "substring"}],
        },
    }

    assert len(found(records, where)) == len(ROWS)
    for kind in ("exact", "shuffle"):
        item = {"text_value": f"{evil} red1", "filter_key": "name", "search_type": kind, "operator": "and"}
        assert found(records, {"text_matches": {"must": [item]}}) == []
