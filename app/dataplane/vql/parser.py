"""From JSON to a ``Query``: every fault of the request is found, named and pointed at, before any SQL is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import comb
from typing import Any, Final, TypeVar

from app.dataplane.vql.catalogue import Catalogue, Field, nearest
from app.dataplane.vql.model import (
    AnyText,
    Bounded,
    Condition,
    Keyword,
    Order,
    Query,
    Range,
    SearchType,
    Text,
    total_order,
)
from app.dataplane.vql.values import (
    KEYWORD_TYPES,
    ORDERED_TYPES,
    RANGE_TYPES,
    TEXT_TYPES,
    Bound,
    WrongValueError,
    equal_value,
    range_value,
    text_value,
)
from app.domain.errors import InvalidRequestError, Problem, segment
from app.domain.tables import ColumnType
from app.domain.texts import shown

MAX_CONDITIONS: Final = 200
MAX_VALUES: Final = 1_000
MAX_WORDS: Final = 32
MAX_SLOP: Final = 5
MAX_PHRASES: Final = 300
"""Spellings that a phrase with slop may be expanded to."""
MAX_ORDER: Final = 8
MAX_PAGE: Final = 10
MAX_LIMIT: Final = 2**62
MAX_PROBLEMS: Final = 50

_T = TypeVar("_T")


def parse(vql: object, catalogue: Catalogue, *, pointer: str = "/vql") -> Query:
    """``vql`` as a query over the catalogue's table.

    Args:
        vql: As JSON gave it; ``{}`` asks for everything.
        catalogue: The columns it may name.
        pointer: Where it stands in the request, for the problems.

    Raises:
        InvalidRequestError: One problem per fault (50 at most). The code is the first one's: ``vql.unknown_column``,
            ``vql.unknown_field``, ``vql.wrong_type``, ``vql.too_large`` or ``vql.invalid``.
    """
    reader = _Reader(catalogue)
    query = reader.query(vql, pointer)
    reader.faults.raise_if_any()
    return query


class _Faults:
    """What is wrong with one request."""

    def __init__(self) -> None:
        self._found: list[tuple[str, Problem]] = []

    def add(self, code: str, pointer: str, detail: str) -> None:
        if len(self._found) < MAX_PROBLEMS:
            self._found.append((f"vql.{code}", Problem(pointer, detail)))

    def raise_if_any(self) -> None:
        if not self._found:
            return
        code, first = self._found[0]
        raise InvalidRequestError(
            f"the query cannot be used: at {first.pointer}: {first.detail}",
            code=code,
            problems=tuple(problem for _, problem in self._found),
        )


class _Reader:
    """Reads one query; faults are collected, and what is faulty is left out of the result."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.faults = _Faults()
        self._catalogue = catalogue
        self._conditions = 0

    def query(self, vql: object, at: str) -> Query:
        found = self._object(
            vql,
            at,
            ("where", "select_columns", "order_by", "search_after", "cursor", "limit", "page", "company_config"),
        )
        where = self._object(found.get("where"), f"{at}/where", ("keyword_match", "text_matches", "range_query"))
        must: list[Condition] = []
        must_not: list[Condition] = []
        self._keywords(where.get("keyword_match"), f"{at}/where/keyword_match", must, must_not)
        self._texts(where.get("text_matches"), f"{at}/where/text_matches", must, must_not)
        self._ranges(where.get("range_query"), f"{at}/where/range_query", must, must_not)
        order = self._order(found.get("order_by"), f"{at}/order_by")
        after = self._after(found, at, order)
        page = self._integer(found.get("page"), f"{at}/page", least=1, most=MAX_PAGE)
        if page is not None and after is not None:
            self.faults.add("invalid", f"{at}/page", "give either a page or a cursor, got both")
        return Query(
            must=tuple(must),
            must_not=tuple(must_not),
            select=self._select(found.get("select_columns"), f"{at}/select_columns"),
            order=order,
            after=after,
            limit=self._integer(found.get("limit"), f"{at}/limit", least=1, most=MAX_LIMIT),
            page=page,
            populate=self._populate(found.get("company_config"), f"{at}/company_config"),
        )

    # The three kinds of conditions

    def _keywords(self, value: object, at: str, must: list[Condition], must_not: list[Condition]) -> None:
        for side, conditions in self._sides(value, at, must, must_not):
            for name, wanted, here in self._entries(side, f"{at}/{_side_name(conditions, must)}"):
                field = self._field(name, here, KEYWORD_TYPES, "keyword_match")
                values = wanted if isinstance(wanted, list) else [wanted]
                if not values:
                    self.faults.add("invalid", here, "expected a value or an array of at least one, got an empty array")
                elif len(values) > MAX_VALUES:
                    self.faults.add("too_large", here, f"expected at most {MAX_VALUES} values, got {len(values)}")
                elif field is not None:
                    conditions.append(self._keyword(field, values, here, many=isinstance(wanted, list)))

    def _keyword(self, field: Field, values: list[Any], at: str, *, many: bool) -> Keyword:
        bound = []
        for position, value in enumerate(values):
            here = f"{at}/{position}" if many else at
            if value is not None and (checked := self._checked(field, equal_value, value, here)):
                bound.append(checked)
        return Keyword(field, tuple(bound), or_missing=None in values)

    def _texts(self, value: object, at: str, must: list[Condition], must_not: list[Condition]) -> None:
        for side, conditions in self._sides(value, at, must, must_not):
            here = f"{at}/{_side_name(conditions, must)}"
            items = self._array(side, here)
            searches = [self._text(item, f"{here}/{position}") for position, item in enumerate(items)]
            found = [search for search in searches if search is not None]
            conditions.extend(_grouped(found) if conditions is must else found)

    def _text(self, value: object, at: str) -> Text | None:
        item = self._object(value, at, ("text_value", "filter_key", "search_type", "slop", "operator", "fuzzy"))
        if not item or not self._room(at):
            if isinstance(value, dict) and not value:
                self.faults.add("invalid", at, "expected text_value, filter_key and search_type, got an empty object")
            return None
        field = self._named_field(item, at)
        kind = self._word(item.get("search_type"), f"{at}/search_type", tuple(SearchType))
        text = self._plain_text(item.get("text_value"), f"{at}/text_value")
        slop = self._integer(item.get("slop"), f"{at}/slop", least=0, most=MAX_SLOP) or 0
        operator = self._word(item.get("operator") or "or", f"{at}/operator", ("and", "or"))
        fuzzy = item.get("fuzzy") or False
        if not isinstance(fuzzy, bool):
            self.faults.add("wrong_type", f"{at}/fuzzy", f"expected true or false, got {shown(fuzzy)}")
        if field is None or kind is None or text is None:
            return None
        if kind == SearchType.SUBSTRING:
            return Text(field, SearchType.SUBSTRING, text)
        words = self._words(text, slop, f"{at}/text_value")
        return Text(field, SearchType(kind), text, words, slop, operator == "and", fuzzy is True)

    def _named_field(self, item: Mapping[str, Any], at: str) -> Field | None:
        name = item.get("filter_key")
        if not isinstance(name, str):
            self.faults.add("wrong_type", f"{at}/filter_key", f"expected a column's name, got {shown(name)}")
            return None
        return self._field(name, f"{at}/filter_key", TEXT_TYPES, "text_matches")

    def _plain_text(self, value: object, at: str) -> str | None:
        try:
            text = text_value(value)
        except WrongValueError as error:
            self.faults.add("wrong_type", at, f"expected {error}, got {shown(value)}")
            return None
        if not text:
            self.faults.add("invalid", at, "expected at least one character, got none")
        return text or None

    def _words(self, text: str, slop: int, at: str) -> tuple[str, ...]:
        words = tuple(word for word in text.split() if any(map(str.isalnum, word)))
        if not words:
            self.faults.add("invalid", at, f"expected at least one letter or digit, got {shown(text)}")
        elif len(words) > MAX_WORDS:
            self.faults.add("too_large", at, f"expected at most {MAX_WORDS} words, got {len(words)}")
        elif slop and comb(slop + len(words) - 1, slop) > MAX_PHRASES:
            self.faults.add("too_large", at, f"slop {slop} is too much for {len(words)} words; lower either")
        return words

    def _ranges(self, value: object, at: str, must: list[Condition], must_not: list[Condition]) -> None:
        for side, conditions in self._sides(value, at, must, must_not):
            for name, wanted, here in self._entries(side, f"{at}/{_side_name(conditions, must)}"):
                field = self._field(name, here, RANGE_TYPES, "range_query")
                bounds = self._object(wanted, here, tuple(Bounded), missing=False)
                if isinstance(wanted, dict) and not wanted:
                    self.faults.add("invalid", here, "expected at least one of gte, lte, gt, lt, got none")
                if field is not None:
                    checked = [
                        (Bounded(word), self._checked(field, range_value, bound, f"{here}/{word}"))
                        for word, bound in bounds.items()
                    ]
                    conditions.append(Range(field, tuple((word, bound) for word, bound in checked if bound)))

    def _sides(
        self, value: object, at: str, must: list[Condition], must_not: list[Condition]
    ) -> Iterable[tuple[object, list[Condition]]]:
        sides = self._object(value, at, ("must", "must_not"))
        return (sides.get("must"), must), (sides.get("must_not"), must_not)

    def _entries(self, value: object, at: str) -> Iterable[tuple[str, Any, str]]:
        for name, wanted in self._object(value, at, None).items():
            here = f"{at}/{_escaped(name)}"
            if not self._room(here):
                return
            yield name, wanted, here

    def _room(self, at: str) -> bool:
        self._conditions += 1
        if self._conditions == MAX_CONDITIONS + 1:
            self.faults.add("too_large", at, f"expected at most {MAX_CONDITIONS} conditions, got more")
        return self._conditions <= MAX_CONDITIONS

    # What is selected, and in which order

    def _select(self, value: object, at: str) -> tuple[Field, ...] | None:
        if value is None:
            return None
        names = self._names(value, at)
        fields = [self._own_field(name, f"{at}/{position}") for position, name in enumerate(names)]
        return tuple(field for field in fields if field is not None)

    def _names(self, value: object, at: str) -> list[str]:
        names = self._array(value, at)
        if not names:
            self.faults.add("invalid", at, "expected an array of at least one column, got none")
        seen: set[str] = set()
        for position, name in enumerate(names):
            if not isinstance(name, str):
                self.faults.add("wrong_type", f"{at}/{position}", f"expected a column's name, got {shown(name)}")
            elif name in seen:
                self.faults.add("invalid", f"{at}/{position}", f"column {shown(name)} stands here twice")
            else:
                seen.add(name)
        return [name for name in names if isinstance(name, str)]

    def _order(self, value: object, at: str) -> tuple[Order, ...]:
        terms: list[Order] = []
        items = self._array(value, at)
        if len(items) > MAX_ORDER:
            self.faults.add("too_large", at, f"expected at most {MAX_ORDER} terms, got {len(items)}")
        for position, entry in enumerate(items[:MAX_ORDER]):
            here = f"{at}/{position}"
            item = self._object(entry, here, ("order_by", "order_direction"), missing=False)
            direction = self._word(item.get("order_direction") or "asc", f"{here}/order_direction", ("asc", "desc"))
            name = item.get("order_by")
            if not isinstance(name, str):
                self.faults.add("wrong_type", f"{here}/order_by", f"expected a column's name, got {shown(name)}")
                continue
            field = self._own_field(name, f"{here}/order_by")
            if field is not None and field.type not in ORDERED_TYPES:
                self.faults.add("wrong_type", f"{here}/order_by", f"{name!r} is {field.type} and has no order")
            elif field is not None and any(term.field == field for term in terms):
                self.faults.add("invalid", f"{here}/order_by", f"column {name!r} stands in the order twice")
            elif field is not None:
                terms.append(Order(field, direction == "desc"))
        return tuple(terms)

    def _after(self, found: Mapping[str, Any], at: str, order: tuple[Order, ...]) -> tuple[Bound | None, ...] | None:
        given = {name: found[name] for name in ("search_after", "cursor") if found.get(name) not in (None, [])}
        if not given:
            return None
        if len(given) == 2:
            self.faults.add("invalid", f"{at}/cursor", "give either cursor or search_after, got both")
            return None
        (name, value), *_ = given.items()
        values = self._array(value, f"{at}/{name}")
        terms = total_order(order, self._catalogue.key_fields())
        if len(values) != len(terms):
            wanted = ", ".join(term.field.name for term in terms)
            self.faults.add(
                "invalid",
                f"{at}/{name}",
                f"expected {len(terms)} values, of {wanted} of the last row; got {len(values)}",
            )
            return None
        return tuple(
            self._after_value(term, value, f"{at}/{name}/{position}")
            for position, (term, value) in enumerate(zip(terms, values, strict=True))
        )

    def _after_value(self, term: Order, value: object, at: str) -> Bound | None:
        if value is None and term.field.nullable:
            return None
        return self._checked(term.field, lambda kind, given: equal_value(kind, given, textual=True), value, at)

    def _populate(self, value: object, at: str) -> tuple[str, ...] | None:
        config = self._object(value, at, ("populate", "select_columns"))
        populate = config.get("populate") or False
        if not isinstance(populate, bool):
            self.faults.add("wrong_type", f"{at}/populate", f"expected true or false, got {shown(populate)}")
        relation = self._catalogue.relation
        if config and relation is None:
            self.faults.add("invalid", at, f"rows of {self._catalogue.table.name!r} have no company")
        if populate is not True or relation is None:
            return None
        if config.get("select_columns") in (None, []):
            return relation.table.column_names
        names = self._names(config["select_columns"], f"{at}/select_columns")
        known = dict.fromkeys(relation.table.column_names)
        for position, name in enumerate(names):
            if name not in known:
                self._unknown(name, f"{at}/select_columns/{position}", known)
        return tuple(names)

    # Shapes

    def _object(
        self, value: object, at: str, known: tuple[str, ...] | None, *, missing: bool = True
    ) -> Mapping[str, Any]:
        if value is None and missing:
            return {}
        if not isinstance(value, dict):
            self.faults.add("wrong_type", at, f"expected an object, got {shown(value)}")
            return {}
        for name in value:
            if known is not None and name not in known:
                self.faults.add(
                    "unknown_field", f"{at}/{_escaped(name)}", f"expected one of {', '.join(known)}, got {shown(name)}"
                )
        return {name: entry for name, entry in value.items() if known is None or name in known}

    def _array(self, value: object, at: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            self.faults.add("wrong_type", at, f"expected an array, got {shown(value)}")
            return []
        return value

    def _integer(self, value: object, at: str, *, least: int, most: int) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            upper = f" to {most}" if most < MAX_LIMIT else " or more"
            self.faults.add("wrong_type", at, f"expected an integer of {least}{upper}, got {shown(value)}")
            return None
        return value

    def _word(self, value: object, at: str, words: tuple[str, ...]) -> str | None:
        if isinstance(value, str) and value.lower() in words:
            return value.lower()
        self.faults.add("invalid", at, f"expected one of {', '.join(words)}, got {shown(value)}")
        return None

    # Columns and values

    def _own_field(self, name: str, at: str) -> Field | None:
        field = self._catalogue.own.get(name)
        if field is None and name in self._catalogue.filters:
            self.faults.add("unknown_column", at, f"column {name!r} can only be filtered by")
        elif field is None:
            self._unknown(name, at, self._catalogue.own)
        return field

    def _field(self, name: str, at: str, kinds: frozenset[ColumnType], where: str) -> Field | None:
        field = self._catalogue.filters.get(name)
        if field is None:
            self._unknown(name, at, self._catalogue.filters)
            return None
        if field.type not in kinds:
            expected = ", ".join(sorted(kinds))
            self.faults.add("wrong_type", at, f"{where} works on {expected}; column {name!r} is {field.type}")
            return None
        return field

    def _unknown(self, name: str, at: str, known: Mapping[str, object]) -> None:
        likely = nearest(name, known)
        advice = f"; did you mean {' or '.join(map(repr, likely))}?" if likely else ""
        self.faults.add("unknown_column", at, f"there is no column {shown(name)}{advice}")

    def _checked(
        self, field: Field, check: Callable[[ColumnType, object], Bound], value: object, at: str
    ) -> Bound | None:
        try:
            return check(field.type, value)
        except WrongValueError as error:
            self.faults.add("wrong_type", at, f"column {field.name!r} takes {error}, got {shown(value)}")
            return None


def _grouped(searches: list[Text]) -> list[AnyText]:
    """Searches of one field are alternatives; fields must each be met."""
    by_field: dict[str, list[Text]] = {}
    for search in searches:
        by_field.setdefault(search.field.name, []).append(search)
    return [AnyText(group[0].field, tuple(group)) for group in by_field.values()]


def _side_name(conditions: list[Condition], must: list[Condition]) -> str:
    return "must" if conditions is must else "must_not"


def _escaped(name: str) -> str:
    """A JSON pointer's segment (RFC 6901), cut where a name is absurd."""
    return segment(name[:100])
