"""``migrate``: rows of one table into another or the search mirror, with equal counts and checksums at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from app.dataplane.migrating import Migration
from app.dataplane.migrating import migrate as copy_rows
from app.dataplane.vql.catalogue import Catalogue
from app.dataplane.vql.parser import parse
from app.dataplane.walking import Walk
from app.domain.errors import InvalidRequestError, Problem
from app.domain.job_types import JobConfig, JobType, Result, Submission
from app.domain.jobs import Outcome
from app.domain.tables import Table, holds
from app.services.tables import Tables
from tasks.mirroring import check_mirror, mirror_whole
from tasks.walks import make_related

if TYPE_CHECKING:
    from tasks.context import RunContext


class Migrate(JobConfig):
    """From where to where."""

    source: str = Field(description="The declared table that is read.")
    to: Literal["table", "mirror"] = Field(
        "table", description="mirror: the source's index in the search server, made anew as rebuild_mirror does."
    )
    target: str | None = Field(
        None, description="The declared table that is written; rows of a key that is there are updated."
    )
    mapping: dict[str, str] = Field(
        default_factory=dict,
        description="The source's column to the target's; without one, columns of one name. The columns of the "
        "source's key go to those of the target's.",
    )
    vql: dict[str, Any] = Field(default_factory=dict, description="where: only rows that meet it (docs/vql.md).")
    batch_rows: int = Field(10_000, ge=1, le=100_000, description="Rows per transaction.")
    revertible: bool = Field(False, description="Keep what rows were before, so that the job can be reverted.")

    @model_validator(mode="after")
    def _has_target(self) -> Self:
        given = self.model_fields_set - {"source", "to"}
        if self.to == "mirror" and given:
            raise ValueError(f"a mirror has the whole table: expected nothing beside source, got {', '.join(given)}")
        if self.to == "table" and self.target is None:
            raise ValueError("expected target, a declared table")
        return self


def check(submission: Submission, config: Migrate) -> None:
    """Refuse tables that are not there, and a mapping in which something would be lost.

    Raises:
        InvalidRequestError: With pointers.
    """
    source = submission.table(config.source, pointer="/config/source")
    if config.target is None:
        check_mirror(submission, pointer="/config/to")
    else:
        _migration(submission.tenant, source, submission.table(config.target, pointer="/config/target"), config)


def run(job: RunContext, config: Migrate) -> Result:
    """Copy batch by batch and compare; a killed job goes on behind its last batch."""
    if config.target is None:
        return mirror_whole(job, config.source)
    tenant, tables = job.job.tenant, Tables(job.sessions)
    target = tables.get(tenant, config.target)
    tables.will_write(tenant, target, job.id, whole=True)
    work = _migration(tenant, tables.get(tenant, config.source), target, config)
    make_related(tables, tenant, work.walk.query)
    books, proof = copy_rows(job, work)
    return Result(
        data={
            "source": config.source,
            "target": config.target,
            "books": books,
            "rows": proof.source_rows,
            "checksum": proof.source_checksum,
        },
        message=f"{proof.source_rows} rows of {config.source} are in {config.target}, with the same checksum",
        outcome=Outcome.SUCCESS if proof.source_rows else Outcome.EMPTY,
    )


def _migration(tenant: str, source: Table, target: Table, config: Migrate) -> Migration:
    columns = config.mapping or {name: name for name in source.column_names if target.column(name)}
    problems = [*_misfits(source, target, columns), *_key_problems(source, target, columns)]
    if source.name == target.name:
        problems.append(Problem("/config/target", f"expected another table than the source, got {target.name!r}"))
    others = sorted(config.vql.keys() - {"where"})
    problems += [Problem(f"/config/vql/{name}", "expected nothing beside where") for name in others]
    if problems:
        raise InvalidRequestError(
            f"rows of {source.name!r} cannot go to {target.name!r} like this",
            code="migrate.mapping_invalid",
            problems=tuple(problems),
        )
    query = parse(config.vql, Catalogue(source), pointer="/config/vql")
    return Migration(Walk(tenant, source, query), target, columns, config.batch_rows, config.revertible)


def _misfits(source: Table, target: Table, columns: dict[str, str]) -> list[Problem]:
    problems = []
    for name, to in columns.items():
        at, mine, theirs = f"/config/mapping/{name}", source.column(name), target.column(to)
        if mine is None:
            problems.append(Problem(at, f"{source.name!r} has no column {name!r}"))
        elif theirs is None:
            problems.append(Problem(at, f"{target.name!r} has no column {to!r}"))
        elif not holds(theirs.type, mine.type):
            problems.append(Problem(at, f"{to!r} is {theirs.type} and does not take every {mine.type}"))
    doubled = {to for to in columns.values() if list(columns.values()).count(to) > 1}
    return problems + [Problem("/config/mapping", f"{to!r} stands twice") for to in sorted(doubled)]


def _key_problems(source: Table, target: Table, columns: dict[str, str]) -> list[Problem]:
    """No two rows may get one key, and each needs one."""
    if {columns.get(name) for name in source.key} == set(target.key):
        return []
    expected = f"expected the key {', '.join(source.key)} to go to the key {', '.join(target.key)}"
    got = ", ".join(f"{name} to {columns.get(name, 'nothing')}" for name in source.key)
    return [Problem("/config/mapping", f"{expected}, got {got}")]


JOB_TYPE = JobType(
    name="migrate",
    config=Migrate,
    run=run,
    check=check,
    summary="Copy rows to another table or the search mirror, and prove it by equal counts and checksums.",
)
