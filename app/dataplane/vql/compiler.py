"""From a ``Query`` to one SELECT: names come from the catalogue, values are bound."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from app.dataplane.vql.catalogue import Field, Relation
from app.dataplane.vql.model import AnyText, Bounded, Condition, Keyword, Order, Query, Range, SearchType, Text
from app.dataplane.vql.values import Bound
from app.domain.tables import ColumnType
from app.domain.texts import like_pattern
from app.persistence.sessions import SIMILAR_WORDS

_COMPARISON: Final = {Bounded.GTE: ">=", Bounded.LTE: "<=", Bounded.GT: ">", Bounded.LT: "<"}
_SOLID_WORD: Final = re.compile(r"[A-Za-z0-9]{3,}")

HALVED_ROWS: Final = 11_000
"""Rows up to which a page is found in two ranges of an index; they are sorted once more, with all of their columns."""

Place = Callable[[str], str]
"""From a table's name to its quoted, qualified name for the tenant."""


@dataclass(slots=True)
class Statement:
    """SQL with ``:name`` parameters, for ``sqlalchemy.text``."""

    sql: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)

    def bind(self, value: object, sql_type: str) -> str:
        """The SQL that stands for ``value``."""
        name = f"v{len(self.parameters)}"
        self.parameters[name] = value
        return f"CAST(:{name} AS {sql_type})"


def compile_select(
    query: Query,
    table: str,
    place: Place,
    *,
    columns: list[str],
    order: tuple[Order, ...],
    limit: int | None,
    offset: int = 0,
    more: Callable[[Statement], Iterable[str]] | None = None,
) -> Statement:
    """``SELECT columns FROM table AS m`` with the query's conditions.

    Args:
        query: Its conditions and ``after`` are used; the rest comes by the arguments.
        table: The table's name.
        place: Qualifies table names.
        columns: SQL of what is selected.
        order: Empty leaves the order to Postgres; must be total when ``query.after`` is set.
        limit: Rows at most; ``None`` for all.
        offset: Rows to leave out first.
        more: Further conditions in SQL, which may bind values.
    """
    statement = Statement()
    where = [*_conditions(query, statement, place), *(more(statement) if more else ())]
    if order and order[0].field.nullable and limit is not None and limit + offset <= HALVED_ROWS:
        source = f"({_halves(place(table), where, order, statement, after=query.after, most=limit + offset)}) AS m"
    else:
        behind = [] if query.after is None else [_behind(order, query.after, statement)]
        source = f"{place(table)} AS m{_all_of([*where, *behind])}"
    sql = f"SELECT {', '.join(columns)} FROM {source}{_ordered_by(order)}"
    if limit is not None:
        sql += f" LIMIT {statement.bind(limit, 'bigint')}"
    if offset:
        sql += f" OFFSET {statement.bind(offset, 'bigint')}"
    statement.sql = sql
    return statement


def _halves(
    source: str,
    where: list[str],
    order: tuple[Order, ...],
    statement: Statement,
    *,
    after: tuple[Bound | None, ...] | None,
    most: int,
) -> str:
    """The first ``most`` rows in an order whose first term may be missing: those that have it, then the others.

    Each half is one range of an index on that term; read backwards, an index has what is missing first.
    """
    first, limit = order[0], f" LIMIT {statement.bind(most, 'bigint')}"
    lacks = [*where, f"{column_sql(first.field)} IS NULL"]
    if after is not None and after[0] is None:
        lacks.append(_behind(order[1:], after[1:], statement))
        return f"SELECT m.* FROM {source} AS m{_all_of(lacks)}{_ordered_by(order[1:])}{limit}"
    present = (replace(first, field=replace(first.field, nullable=False)), *order[1:])
    has = [*where, f"{column_sql(first.field)} IS NOT NULL"]
    if after is not None:
        has.append(_behind(present, after, statement))
    # Rows without the term are looked for only when there are too few with it.
    lacks.append(f"(SELECT count(*) FROM has) < {statement.bind(most, 'bigint')}")
    return (
        f"WITH has AS MATERIALIZED (SELECT m.* FROM {source} AS m{_all_of(has)}{_ordered_by(present)}{limit}) "
        f"SELECT * FROM has UNION ALL (SELECT m.* FROM {source} AS m{_all_of(lacks)}{_ordered_by(order[1:])}{limit})"
    )


def _all_of(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _ordered_by(order: tuple[Order, ...]) -> str:
    return f" ORDER BY {', '.join(_order_sql(term) for term in order)}" if order else ""


def column_sql(one: Field) -> str:
    """A column of the table that is queried."""
    return f"m.{quoted(one.column.name)}"


def quoted(name: str) -> str:
    """A name as an SQL identifier; names come from checked declarations, so none holds a quote."""
    if '"' in name or "\0" in name or ":" in name:
        raise ValueError(f"no column can be called {name!r}")
    return f'"{name}"'


def _order_sql(term: Order) -> str:
    nulls = " NULLS LAST" if term.field.nullable else ""
    return f"{column_sql(term.field)} {'DESC' if term.descending else 'ASC'}{nulls}"


def _conditions(query: Query, statement: Statement, place: Place) -> Iterator[str]:
    for condition in query.must:
        yield _met(condition, statement, place)
    for condition in query.must_not:
        # A comparison with NULL is unknown, not false: a row without a value is not excluded.
        yield f"({_met(condition, statement, place)}) IS NOT TRUE"


def _met(condition: Condition, statement: Statement, place: Place) -> str:
    relation = condition.field.relation
    column = f"{'r' if relation else 'm'}.{quoted(condition.field.column.name)}"
    if isinstance(condition, Keyword):
        return _keyword(condition, column, statement, place)
    return _related(_test(condition, column, statement), relation, place)


def _related(test: str, relation: Relation | None, place: Place) -> str:
    if relation is None:
        return test
    return (
        f"m.{quoted(relation.column)} IN "
        f"(SELECT r.{quoted(relation.key)} FROM {place(relation.table.name)} AS r WHERE {test})"
    )


def _keyword(condition: Keyword, column: str, statement: Statement, place: Place) -> str:
    relation = condition.field.relation
    tests = []
    if condition.values:
        tests.append(_related(_is_one_of(condition, column, statement), relation, place))
    if condition.or_missing:
        present = f"cardinality({column}) > 0" if _is_array(condition.field) else f"{column} IS NOT NULL"
        tests.append(f"({_related(present, relation, place)}) IS NOT TRUE")
    return f"({' OR '.join(tests)})"


def _is_one_of(condition: Keyword, column: str, statement: Statement) -> str:
    values = [bound.value for bound in condition.values]
    sql_type = condition.values[0].sql_type
    if _is_array(condition.field):
        return f"{column} && {statement.bind(values, 'text[]')}"
    if len(values) == 1:
        return f"{column} = {statement.bind(values[0], sql_type)}"
    return f"{column} = ANY({statement.bind(values, sql_type + '[]')})"


def _is_array(one: Field) -> bool:
    return one.type is ColumnType.TEXT_ARRAY


def _test(condition: Text | AnyText | Range, column: str, statement: Statement) -> str:
    if isinstance(condition, Range):
        return " AND ".join(
            f"{column} {_COMPARISON[word]} {statement.bind(bound.value, bound.sql_type)}"
            for word, bound in condition.bounds
        )
    if isinstance(condition, AnyText):
        return "(" + " OR ".join(_search(search, column, statement) for search in condition.searches) + ")"
    return _search(condition, column, statement)


def _search(search: Text, column: str, statement: Statement) -> str:
    if _is_array(search.field):
        return f"EXISTS (SELECT FROM unnest({column}) AS e (item) WHERE {_in_text(search, 'e.item', statement)})"
    return _in_text(search, column, statement)


def _in_text(search: Text, text: str, statement: Statement) -> str:
    if search.search_type is SearchType.SUBSTRING:
        return f"{text} ILIKE {statement.bind(like_pattern(search.text), 'text')}"
    if search.search_type is SearchType.EXACT:
        tests = [*_cheap_tests(search.words, text, statement), f"{_vector(text)} @@ {_phrase(search, statement)}"]
        return f"({' AND '.join(tests)})"
    if search.fuzzy:
        joint = " AND " if search.every else " OR "
        return "(" + joint.join(_similar(word, text, statement) for word in search.words) + ")"
    joint = " && " if search.every else " || "
    wanted = joint.join(_words_query(word, statement) for word in search.words)
    tests = [*(_cheap_tests(search.words, text, statement) if search.every else []), f"{_vector(text)} @@ ({wanted})"]
    return f"({' AND '.join(tests)})"


def _vector(text: str) -> str:
    return f"to_tsvector('simple', {text})"


def _words_query(word: str, statement: Statement) -> str:
    return f"phraseto_tsquery('simple', {statement.bind(word, 'text')})"


def _cheap_tests(words: tuple[str, ...], text: str, statement: Statement) -> Iterator[str]:
    # A word of plain letters and digits is a substring wherever it is a word; ILIKE rejects a row five times faster
    # than it is split into words, and can use a trigram index.
    for word in words:
        if _SOLID_WORD.fullmatch(word):
            yield f"{text} ILIKE {statement.bind(like_pattern(word), 'text')}"


def _phrase(search: Text, statement: Statement) -> str:
    words = [_words_query(word, statement) for word in search.words]
    phrases = []
    for gaps in _gaps(len(words) - 1, search.slop):
        phrase = words[0]
        for word, gap in zip(words[1:], gaps, strict=True):
            phrase = f"tsquery_phrase({phrase}, {word}, {gap + 1})"
        phrases.append(phrase)
    return f"({' || '.join(phrases)})"


def _gaps(places: int, slop: int) -> Iterator[tuple[int, ...]]:
    """Every way to put at most ``slop`` words into ``places`` gaps."""
    if places == 0:
        yield ()
        return
    for first in range(slop + 1):
        for rest in _gaps(places - 1, slop - first):
            yield first, *rest


def _similar(word: str, text: str, statement: Statement) -> str:
    wanted = statement.bind(word, "text")
    similar = (
        f"EXISTS (SELECT FROM unnest(tsvector_to_array({_vector(text)})) AS w (word) "
        f"WHERE similarity(w.word, {wanted}) >= {SIMILAR_WORDS})"
    )
    if _SOLID_WORD.fullmatch(word):
        # No word is more similar than the stretch of whole words that it is, so <<%, which a trigram index serves,
        # leaves none out but those that stick to a number (1.5kg). The word itself is the most similar of all.
        return f"({wanted} <<% {text} AND {similar})"
    return f"({_vector(text)} @@ phraseto_tsquery('simple', {wanted}) OR {similar})"


def _behind(order: tuple[Order, ...], after: tuple[Bound | None, ...], statement: Statement) -> str:
    """Rows behind the one with these values, missing values last in either direction."""
    same: list[str] = []
    ways = []
    for term, value in zip(order, after, strict=True):
        column = column_sql(term.field)
        if value is None:
            same.append(f"{column} IS NULL")
            continue
        bound = statement.bind(value.value, value.sql_type)
        later = f"{column} {'<' if term.descending else '>'} {bound}"
        if term.field.nullable:
            later = f"({later} OR {column} IS NULL)"
        ways.append("(" + " AND ".join([*same, later]) + ")")
        same.append(f"{column} = {bound}")
    behind = f"({' OR '.join(ways)})" if ways else "FALSE"
    first, value = order[0], after[0]
    if len(order) == 1 or value is None or first.field.nullable:
        return behind
    # Says nothing new, but lets an index on the first term start at the right place.
    edge = statement.bind(value.value, value.sql_type)
    return f"({column_sql(first.field)} {'<=' if first.descending else '>='} {edge} AND {behind})"
