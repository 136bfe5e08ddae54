"""What Postgres plans for a query, before anybody runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.dataplane.vql.compiler import Statement
from app.domain.queries import Estimate
from app.domain.tables import Column

MS_PER_COST: Final = 0.01
"""What one unit of the planner's cost, about a page read in order, takes on today's machines."""
_JSON_AROUND_BYTES: Final = 6


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan, ``depth`` below the last one taken; ``rows`` and ``cost`` are guesses."""

    depth: int
    does: str
    table: str | None
    index: str | None
    rows: int
    cost: float


@dataclass(frozen=True, slots=True)
class Explained:
    """A query as it would run.

    Args:
        sql: Its values are apart, in ``parameters``, by name.
        steps: Of the plan, the last one taken first.
    """

    sql: str
    parameters: Mapping[str, Any]
    estimate: Estimate
    steps: tuple[Step, ...]

    @property
    def indexes(self) -> list[str]:
        """The indexes that would be used."""
        return sorted({step.index for step in self.steps if step.index is not None})

    @property
    def whole_tables(self) -> list[str]:
        """The tables that would be read from end to end."""
        return sorted({step.table for step in self.steps if step.does.endswith("Seq Scan") and step.table is not None})


def explain(session: Session, statement: Statement, columns: Sequence[Column], *, as_json: bool = False) -> Explained:
    """The plan of ``statement``, which is not run.

    Args:
        columns: What it selects, for the size of the output.
        as_json: Whether each row names its columns.
    """
    said = session.execute(text(f"EXPLAIN (FORMAT JSON) {statement.sql}"), statement.parameters).scalar_one()
    top = (json.loads(said) if isinstance(said, str) else said)[0]["Plan"]
    around = sum(len(column.name) + _JSON_AROUND_BYTES for column in columns) if as_json else len(columns)
    rows = int(top["Plan Rows"])
    estimate = Estimate(rows, rows * (int(top["Plan Width"]) + around), float(top["Total Cost"]))
    return Explained(statement.sql, statement.parameters, estimate, tuple(_steps(top, 0)))


def _steps(node: Mapping[str, Any], depth: int) -> Iterator[Step]:
    # Of a node only what names no value: its conditions hold what was asked for.
    yield Step(
        depth,
        node["Node Type"],
        node.get("Relation Name"),
        node.get("Index Name"),
        int(node["Plan Rows"]),
        float(node["Total Cost"]),
    )
    for inner in node.get("Plans", ()):
        yield from _steps(inner, depth + 1)
