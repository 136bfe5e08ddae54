"""A query after parsing: every column known, every value of its column's type."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.dataplane.vql.catalogue import Field
from app.dataplane.vql.values import Bound


class SearchType(StrEnum):
    """How ``text_matches`` looks for a text."""

    EXACT = "exact"
    """The words in this order, with up to ``slop`` others between them."""
    SHUFFLE = "shuffle"
    """The words in any order, all of them or any."""
    SUBSTRING = "substring"
    """The characters anywhere, whatever their case."""


class Bounded(StrEnum):
    """The comparisons of ``range_query``."""

    GTE = "gte"
    LTE = "lte"
    GT = "gt"
    LT = "lt"


@dataclass(frozen=True, slots=True)
class Keyword:
    """Equal to one of ``values``, or without a value when ``or_missing``; for arrays: has one of them."""

    field: Field
    values: tuple[Bound, ...]
    or_missing: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """One text search.

    Args:
        text: What is looked for.
        words: Its parts between white space that hold a letter or a digit; empty for ``substring``.
        slop: For ``exact``: words that may stand between, in all.
        every: For ``shuffle``: all words, not any.
        fuzzy: For ``shuffle``: words that are similar count too.
    """

    field: Field
    search_type: SearchType
    text: str
    words: tuple[str, ...] = ()
    slop: int = 0
    every: bool = False
    fuzzy: bool = False


@dataclass(frozen=True, slots=True)
class AnyText:
    """At least one of several searches of one field."""

    field: Field
    searches: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """Within all of the bounds."""

    field: Field
    bounds: tuple[tuple[Bounded, Bound], ...]


Condition = Keyword | Text | AnyText | Range


@dataclass(frozen=True, slots=True)
class Order:
    """One term of an order."""

    field: Field
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A whole query.

    Args:
        must: All hold.
        must_not: None holds; a row without a value is not excluded.
        select: ``None`` when the query names none.
        order: As asked, without the key.
        after: The row to go on behind: a value (``None``: missing) per term of ``total_order``.
        limit: Rows at most.
        page: From 1; ``None`` when not asked for.
        populate: Columns of the related row to bring along; ``None`` for none.
    """

    must: tuple[Condition, ...] = ()
    must_not: tuple[Condition, ...] = ()
    select: tuple[Field, ...] | None = None
    order: tuple[Order, ...] = ()
    after: tuple[Bound | None, ...] | None = None
    limit: int | None = None
    page: int | None = None
    populate: tuple[str, ...] | None = None

    @property
    def uses_relation(self) -> bool:
        """Whether the related table must exist for it."""
        conditions = (*self.must, *self.must_not)
        return self.populate is not None or any(one.field.relation is not None for one in conditions)


def total_order(order: tuple[Order, ...], key: tuple[Field, ...]) -> tuple[Order, ...]:
    """``order`` with the key's columns behind it, none twice, in the direction of the last term."""
    named = {term.field.name for term in order}
    descending = order[-1].descending if order else False
    return order + tuple(Order(field, descending) for field in key if field.name not in named)
