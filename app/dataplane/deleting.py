"""Rows that a query means are deleted, a batch a transaction; a killed job goes on behind its last batch."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from app.dataplane import images
from app.dataplane.context import TableContext
from app.dataplane.walking import Key, Walk, same_key, walk_on
from app.persistence import jobs

DELETED: Final = "deleted"


def delete(context: TableContext, walk: Walk, *, batch_rows: int, revertible: bool = False) -> int:
    """Delete the rows of a walk; how many were, by all runs of the job.

    A row that another changes meanwhile goes only if it is still meant.

    Args:
        revertible: Keep what the rows were, so that the job can be reverted.
    Raises:
        JobError: The table refuses; ``TransientError``: another attempt may do better.
        FenceLost: Another worker has the job.
    """
    returned, kept = "1", ""
    if revertible:
        returned = f"{images.key_of(walk.table, 'kept')} AS key, {images.image_of(walk.table, 'kept')} AS image"
        kept = f", images AS ({images.keep(walk.table, 'deleted', deleted=True)})"

    def batch(after: Key | None) -> Key | None:
        page = walk.page(walk.key_columns(), after=after, limit=batch_rows)
        statement = f"""
            WITH doomed AS MATERIALIZED ({page.sql} FOR UPDATE OF m),
            deleted AS (
                DELETE FROM {walk.relation} AS kept USING doomed
                WHERE {same_key(walk.table, "kept", "doomed")} RETURNING {returned}
            ){kept}
            SELECT (SELECT count(*) FROM deleted) AS rows, {walk.last("doomed")} AS last
            """
        with context.sessions.begin() as session:
            found = session.execute(text(statement), {**page.parameters, "job": context.id}).one()
            if found.last is None:
                return None
            signals = jobs.advance(
                session,
                context.job,
                rows=found.rows,
                counters={DELETED: found.rows},
                stage="deleting",
                checkpoint={"walk": found.last},
            )
        context.heed(signals)
        return tuple(found.last)

    return walk_on(context, batch).counters.get(DELETED, 0)
