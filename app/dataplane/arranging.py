"""Where the fields stand that a config's transforms, services and rules name, and whether it can be done to a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from app.dataplane.companions import companions_of
from app.dataplane.mapping import Columns, folded, nearest
from app.dataplane.plan import Plan
from app.dataplane.rules import Custom, Rule, Unique
from app.dataplane.shaping import Layout, Shaper, Shaping
from app.domain.errors import JobError, PermanentError, Problem
from app.domain.job_types import JobContext
from app.domain.tables import Table


def problems_of(shaping: Shaping, table: Table, *, companions: bool) -> list[Problem]:
    """What is wrong with a config whatever the file is, with pointers into it."""
    columns = Columns(table, companions_of(table) if companions else None)
    return [
        *_of_targets(shaping, columns),
        *(
            problem
            for place, rule in enumerate(shaping.rules)
            for problem in _of_rule(rule, f"/config/rules/{place}", shaping, columns)
        ),
        *_of_providers(shaping),
    ]


def problems_in(shaping: Shaping, table: Table, *, writes: bool) -> list[Problem]:
    """What is wrong with a config for rows that stand in the table, with pointers into it.

    Args:
        writes: What comes of the rows is written to them; else they are only judged.
    """
    columns = Columns(table, None)
    return [
        *problems_of(shaping, table, companions=False),
        *_of_sources(shaping, columns),
        *(_of_rows_written(shaping, table) if writes else ()),
    ]


def _of_sources(shaping: Shaping, columns: Columns) -> Iterator[Problem]:
    for place, one in enumerate(shaping.transforms):
        if one.source is not None:
            yield from (Problem(f"/config/transforms/{place}/field", said) for said in _unknown((one.source,), columns))
    for place, spec in enumerate(shaping.enrich):
        yield from (Problem(f"/config/enrich/{place}/key", said) for said in _unknown(spec.key, columns))


def _of_rows_written(shaping: Shaping, table: Table) -> Iterator[Problem]:
    expected = "expected no column of the key, by which the rows are found"
    for place, one in enumerate(shaping.transforms):
        for name in set(one.targets) & set(table.key):
            yield Problem(f"/config/transforms/{place}", f"{expected}, got {name!r}")
    for place, spec in enumerate(shaping.enrich):
        for name in spec.fields.keys() & set(table.key):
            yield Problem(f"/config/enrich/{place}/fields", f"{expected}, got {name!r}")
    for place, rule in enumerate(shaping.rules):
        if isinstance(rule, Unique):
            yield Problem(
                f"/config/rules/{place}", "expected rules on one row alone: a job of type validate looks for unique"
            )


def _of_targets(shaping: Shaping, columns: Columns) -> Iterator[Problem]:
    for place, one in enumerate(shaping.transforms):
        if one.targets != (one.source,):
            at = f"/config/transforms/{place}/{'field' if one.source is None else 'into'}"
            yield from (Problem(at, said) for said in _unknown(one.targets, columns))
    for place, spec in enumerate(shaping.enrich):
        yield from (Problem(f"/config/enrich/{place}/fields", said) for said in _unknown(tuple(spec.fields), columns))


def _unknown(names: Sequence[str], columns: Columns) -> Iterator[str]:
    for name in names:
        if name not in columns.names:
            yield f"{name!r} is no column of {columns.table.name!r}. {columns.nearest(name)}".strip()


def _of_rule(rule: Rule, at: str, shaping: Shaping, columns: Columns) -> Iterator[Problem]:
    unknown = list(_unknown(rule.fields, columns))
    yield from (Problem(at, said) for said in unknown)
    if not unknown and (misfit := rule.misfit([columns.column(name) for name in rule.fields])):
        yield Problem(at, misfit)
    asked_for = {name for spec in shaping.enrich for name in spec.fields}
    if isinstance(rule, Unique) and asked_for & set(rule.columns):
        yield Problem(at, "expected columns that no provider fills: what those give may be another the next time")
    if isinstance(rule, Custom):
        try:
            _ = rule.validator
        except PermanentError as error:
            yield Problem(f"{at}/name", error.detail)


def _of_providers(shaping: Shaping) -> Iterator[Problem]:
    for place, spec in enumerate(shaping.enrich):
        try:
            spec.parsed()
        except PermanentError as error:
            part = "config" if error.code == "enrich.config_invalid" else "provider"
            yield Problem(f"/config/enrich/{place}/{part}", error.detail)


def layout_of(plan: Plan, table: Table) -> Layout:
    """Where everything stands that the plan's shaping names.

    Raises:
        JobError: ``import.field_unknown``: something is neither a column that is filled nor a header.
    """
    mapped, shaping = plan.mapped, plan.shaping
    filled = dict(zip(mapped.columns, mapped.positions, strict=True))
    filled |= dict(zip(mapped.companion_columns, mapped.companion_positions, strict=True))
    headers = {folded(name): position for position, name in enumerate(plan.names)}
    columns = Columns(table, companions_of(table) if mapped.companion_columns else None)
    used = {
        name: _position(name, filled, headers) for name in dict.fromkeys([*shaping.sources, *_columns_named(shaping)])
    }
    return Layout({**filled, **used}, {name: columns.column(name) for name in filled}, plan.width)


def _columns_named(shaping: Shaping) -> list[str]:
    return [*shaping.made, *(name for rule in shaping.rules for name in rule.fields)]


def _position(name: str, filled: Mapping[str, int], headers: Mapping[str, int]) -> int:
    position = filled.get(name, headers.get(folded(name)))
    if position is None:
        raise JobError(
            f"the config names {name!r}, which is neither a column that the file fills nor one of its headers",
            code="import.field_unknown",
            hint=nearest(folded(name), [*filled, *headers]) or None,
            data={"field": name},
        )
    return position


def shaper_of(plan: Plan, table: Table, job: JobContext | None) -> Shaper | None:
    """What does it to a run's chunks; ``None`` when there is nothing to do.

    Args:
        job: Whose run it is; without one no service is asked, and the columns that services fill stay empty.
    Raises:
        JobError: As ``layout_of``.
    """
    if not plan.shaping:
        return None
    shaping = plan.shaping if job else plan.shaping.without_services()
    return Shaper(shaping, layout_of(plan, table), job, plan.keeps_empty)
