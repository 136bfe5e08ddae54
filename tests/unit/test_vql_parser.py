"""What a query may say, and how each fault of it is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.compiler import compile_select, quoted
from app.dataplane.vql.model import total_order
from app.dataplane.vql.parser import MAX_CONDITIONS, MAX_PROBLEMS, MAX_VALUES, parse
from app.domain.errors import InvalidRequestError
from app.domain.tables import CONTACTS, Column, ColumnType, Table

CATALOGUE = Catalogue(CONTACTS)
TEXT = "/vql/where/text_matches/must/0"
KEYWORD = "/vql/where/keyword_match/must"
RANGE = "/vql/where/range_query/must"
MIXED = Catalogue(
    Table(
        "things",
        tuple(
            Column(name, kind)
            for name, kind in (
                ("id", ColumnType.BIGINT),
                ("small", ColumnType.INTEGER),
                ("price", ColumnType.NUMERIC),
                ("ratio", ColumnType.DOUBLE),
                ("live", ColumnType.BOOLEAN),
                ("born", ColumnType.DATE),
                ("seen", ColumnType.TIMESTAMPTZ),
                ("ref", ColumnType.UUID),
                ("extra", ColumnType.JSON),
                ("tags", ColumnType.TEXT_ARRAY),
                ("name", ColumnType.TEXT),
            )
        ),
        key=("id",),
    )
)


def refused(vql: object, catalogue: Catalogue = CATALOGUE) -> tuple[str, str, str]:
    """The code of the refusal, the first problem's pointer and its text."""
    with pytest.raises(InvalidRequestError) as error:
        parse(vql, catalogue)
    return error.value.code, error.value.problems[0].pointer, error.value.problems[0].detail


def keywords(**must: Any) -> dict[str, Any]:
    return {"where": {"keyword_match": {"must": must}}}


def texts(**item: Any) -> dict[str, Any]:
    return {"where": {"text_matches": {"must": [item]}}}


def search(**item: Any) -> dict[str, Any]:
    return texts(**{"filter_key": "email", "search_type": "exact"} | item)


def ranges(**must: Any) -> dict[str, Any]:
    return {"where": {"range_query": {"must": must}}}


@pytest.mark.feature("S4-101")
def test_an_unknown_column_is_named_with_the_nearest_ones() -> None:
    code, pointer, detail = refused(keywords(contry="US"))

    assert code == "vql.unknown_column"
    assert pointer == KEYWORD + "/contry"
    assert "'country'" in detail


@pytest.mark.feature("S4-34", "S4-101")
@pytest.mark.parametrize(
    ("vql", "pointer"),
    [
        ({"select_columns": ["email", "emial"]}, "/vql/select_columns/1"),
        ({"order_by": [{"order_by": "emial"}]}, "/vql/order_by/0/order_by"),
        (search(text_value="a", filter_key="emial"), TEXT + "/filter_key"),
        (ranges(cretaed_at={"gte": "2026-01-01"}), RANGE + "/cretaed_at"),
        ({"select_columns": ["company_name"]}, "/vql/select_columns/0"),
        ({"order_by": [{"order_by": "company_name"}]}, "/vql/order_by/0/order_by"),
        ({"company_config": {"populate": True, "select_columns": ["nmae"]}}, "/vql/company_config/select_columns/0"),
    ],
)
def test_an_unknown_column_is_found_wherever_it_stands(vql: dict[str, Any], pointer: str) -> None:
    code, at, _ = refused(vql)

    assert (code, at) == ("vql.unknown_column", pointer)


@pytest.mark.parametrize(
    "name", ['email"; DROP TABLE contacts; --', "email'", "a/b~c", "EMAIL", "", "haulier_job_id", "m.email", ":v0"]
)
def test_injection_text_as_a_column_is_an_unknown_column(name: str) -> None:
    for vql in (keywords(**{name: "x"}), {"select_columns": [name]}, {"order_by": [{"order_by": name}]}):
        code, _, _ = refused(vql)
        assert code == "vql.unknown_column"


def test_a_pointer_escapes_what_rfc_6901_asks_for() -> None:
    _, pointer, _ = refused(keywords(**{"a/b~c": "x"}))

    assert pointer.endswith("/must/a~1b~0c")


@pytest.mark.feature("S4-100")
@pytest.mark.parametrize(
    ("vql", "code", "pointer"),
    [
        ([], "vql.wrong_type", "/vql"),
        ("SELECT 1", "vql.wrong_type", "/vql"),
        ({"filter": {}}, "vql.unknown_field", "/vql/filter"),
        ({"where": {"or": []}}, "vql.unknown_field", "/vql/where/or"),
        ({"where": {"where": {"where": {}}}}, "vql.unknown_field", "/vql/where/where"),
        ({"where": {"keyword_match": {"should": {}}}}, "vql.unknown_field", "/vql/where/keyword_match/should"),
        (ranges(created_at={"ge": "2026-01-01"}), "vql.unknown_field", RANGE + "/created_at/ge"),
        (ranges(created_at={}), "vql.invalid", RANGE + "/created_at"),
        (ranges(created_at=5), "vql.wrong_type", RANGE + "/created_at"),
        (ranges(country={"gte": "A"}), "vql.wrong_type", RANGE + "/country"),
        (keywords(country=[]), "vql.invalid", KEYWORD + "/country"),
        (keywords(country={"a": 1}), "vql.wrong_type", KEYWORD + "/country"),
        (keywords(country=["US", 5]), "vql.wrong_type", KEYWORD + "/country/1"),
        (keywords(country="a\0b"), "vql.wrong_type", KEYWORD + "/country"),
        (keywords(country="\ud800"), "vql.wrong_type", KEYWORD + "/country"),
        (keywords(uuid="not-a-uuid"), "vql.wrong_type", KEYWORD + "/uuid"),
        (search(text_value="a", search_type="regex"), "vql.invalid", TEXT + "/search_type"),
        (search(text_value=5), "vql.wrong_type", TEXT + "/text_value"),
        (search(text_value="", search_type="substring"), "vql.invalid", TEXT + "/text_value"),
        (search(text_value="!!"), "vql.invalid", TEXT + "/text_value"),
        (search(text_value="a", filter_key="id"), "vql.wrong_type", TEXT + "/filter_key"),
        (search(text_value="a", search_type="shuffle", operator="xor"), "vql.invalid", TEXT + "/operator"),
        (search(text_value="a", search_type="shuffle", fuzzy="yes"), "vql.wrong_type", TEXT + "/fuzzy"),
        (search(text_value="a", slop=6), "vql.wrong_type", TEXT + "/slop"),
        (search(text_value="a " * 33), "vql.too_large", TEXT + "/text_value"),
        (search(text_value="a " * 12, slop=5), "vql.too_large", TEXT + "/text_value"),
        ({"where": {"text_matches": {"must": {}}}}, "vql.wrong_type", "/vql/where/text_matches/must"),
        ({"where": {"text_matches": {"must": [{}]}}}, "vql.invalid", "/vql/where/text_matches/must/0"),
        ({"select_columns": []}, "vql.invalid", "/vql/select_columns"),
        ({"select_columns": "email"}, "vql.wrong_type", "/vql/select_columns"),
        ({"select_columns": ["email", "email"]}, "vql.invalid", "/vql/select_columns/1"),
        ({"select_columns": [["email"]]}, "vql.wrong_type", "/vql/select_columns/0"),
        ({"order_by": [{"order_by": "id", "order_direction": "up"}]}, "vql.invalid", "/vql/order_by/0/order_direction"),
        ({"order_by": [{"order_by": "email"}, {"order_by": "email"}]}, "vql.invalid", "/vql/order_by/1/order_by"),
        ({"order_by": [{"order_by": "departments"}]}, "vql.wrong_type", "/vql/order_by/0/order_by"),
        ({"order_by": ["email"]}, "vql.wrong_type", "/vql/order_by/0"),
        ({"order_by": [{"order_by": "email"}] * 9}, "vql.too_large", "/vql/order_by"),
        ({"limit": -1}, "vql.wrong_type", "/vql/limit"),
        ({"limit": "5"}, "vql.wrong_type", "/vql/limit"),
        ({"limit": True}, "vql.wrong_type", "/vql/limit"),
        ({"page": 11}, "vql.wrong_type", "/vql/page"),
        ({"search_after": ["a", "b"]}, "vql.invalid", "/vql/search_after"),
        ({"search_after": ["nonsense"]}, "vql.wrong_type", "/vql/search_after/0"),
        ({"search_after": [None]}, "vql.wrong_type", "/vql/search_after/0"),
        ({"search_after": ["x"], "cursor": ["x"]}, "vql.invalid", "/vql/cursor"),
    ],
)  # fmt: skip
def test_a_fault_is_pointed_at(vql: object, code: str, pointer: str) -> None:
    assert refused(vql)[:2] == (code, pointer)


def test_every_fault_of_a_query_is_reported_at_once() -> None:
    vql = keywords(nope="x", id="five") | {"limit": 0, "select_columns": ["nope"]}

    with pytest.raises(InvalidRequestError) as error:
        parse(vql, CATALOGUE, pointer="/config/vql")

    assert [problem.pointer.removeprefix("/config/vql/") for problem in error.value.problems] == [
        "where/keyword_match/must/nope",
        "where/keyword_match/must/id",
        "select_columns/0",
        "limit",
    ]


@pytest.mark.feature("S4-90")
@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("small", [5, -5, 5.0, 5.5, 2**63 - 1], ["5", 2**63, True, None]),
        ("price", [1, 1.25, 10**300], ["1", float("nan"), float("inf"), 10**500, 10**5000, True]),
        ("ratio", [1, 1.5e300], ["1", float("inf"), 10**400, False]),
        ("born", ["2026-01-31"], ["2026-02-30", "20260131", "2026-01-31T00:00:00Z", 20260131]),
        ("seen", ["2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00.5+05:30"], ["soon", "+25:00", 1700000000]),
    ],
)
def test_bounds_are_checked_by_their_columns_type(column: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        parse(ranges(**{column: {"lt": value}}), MIXED)
    for value in bad:
        assert refused(ranges(**{column: {"lt": value}}), MIXED)[0] == "vql.wrong_type", value


def test_json_columns_can_be_selected_but_not_compared() -> None:
    assert parse({"select_columns": ["extra"]}, MIXED).select is not None
    for vql in (keywords(extra="x"), ranges(extra={"gt": 1}), {"order_by": [{"order_by": "extra"}]}):
        assert refused(vql, MIXED)[0] == "vql.wrong_type"


def test_only_contacts_bring_a_company_along() -> None:
    populated = parse({"company_config": {"populate": True}}, CATALOGUE).populate

    assert populated is not None
    assert "normalized_domain" in populated
    assert refused({"company_config": {"populate": True}}, MIXED)[1] == "/vql/company_config"


def test_conditions_values_and_problems_are_bounded() -> None:
    many_items = [{"text_value": "a", "filter_key": "email", "search_type": "substring"}] * (MAX_CONDITIONS + 1)
    many_unknown = {f"column_{number}": "x" for number in range(150)}

    assert refused({"where": {"text_matches": {"must": many_items}}})[0] == "vql.too_large"
    assert refused(keywords(country=["US"] * (MAX_VALUES + 1)))[0] == "vql.too_large"
    with pytest.raises(InvalidRequestError) as error:
        parse(keywords(**many_unknown), CATALOGUE)
    assert len(error.value.problems) == MAX_PROBLEMS


def test_a_very_deep_value_is_refused_like_any_other() -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]

    assert refused(keywords(country=deep))[0] == "vql.wrong_type"


def test_nulls_count_as_left_out_where_a_client_sends_every_field() -> None:
    vql = {"where": {"keyword_match": None, "text_matches": {"must": None}}, "order_by": None, "search_after": []}

    query = parse(vql, CATALOGUE)

    assert (query.must, query.must_not, query.order, query.after) == ((), (), (), None)


@pytest.mark.feature("S4-38", "S4-130")
def test_the_key_is_added_to_an_order_once() -> None:
    plain = parse({}, CATALOGUE)
    by_email = parse({"order_by": [{"order_by": "email", "order_direction": "DESC"}]}, CATALOGUE)
    by_key = parse({"order_by": [{"order_by": "uuid", "order_direction": "desc"}]}, CATALOGUE)

    orders = [
        [(term.field.name, term.descending) for term in total_order(query.order, CATALOGUE.key_fields())]
        for query in (plain, by_email, by_key)
    ]

    assert orders == [[("uuid", False)], [("email", True), ("uuid", True)], [("uuid", True)]]


NAMES_OF_VQL = [
    *("where", "keyword_match", "text_matches", "range_query", "must", "must_not", "gte", "lt"),
    *("text_value", "filter_key", "search_type", "select_columns", "order_by", "search_after", "limit"),
    *("country", "departments", "created_at", "id", "nope"),
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES_OF_VQL),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(vql=_JSON)
def test_whatever_json_comes_is_compiled_or_refused_and_none_of_it_becomes_sql(vql: Any) -> None:
    try:
        query = parse(vql, CATALOGUE)
    except InvalidRequestError:
        return

    order = total_order(query.order, CATALOGUE.key_fields())
    statement = compile_select(query, "contacts", lambda name: f'"t_x"."{name}"', columns=["1"], order=order, limit=1)

    plain = parse(vql, CATALOGUE)
    assert plain == query
    assert set(statement.sql) <= set(
        " \"'.,()<>=:@&|*0123456789_[]" + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    )


def test_a_name_that_could_leave_its_quotes_is_refused() -> None:
    for name in ('a"b', "a:b", "a\0b"):
        with pytest.raises(ValueError, match="no column"):
            quoted(name)
