"""Stages: their configs are filled in when they may begin, and one that failed may be run again as a whole.

No code of a job type runs here: a filled config is checked by its type where every config is, in the worker.
"""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy.orm import Session

from app.domain.errors import JobError
from app.domain.families import Kind
from app.domain.jobs import Job
from app.domain.lifecycle import Event, JobState
from app.domain.pipelines import MAX_FILLED_BYTES, fill, references
from app.persistence import jobs, stages
from app.persistence.numbering import Ended
from app.persistence.stages import Unfilled

MAX_RESULT_BYTES: Final = 262_144
"""What the stages' results may come to in their pipeline's."""


def fill_in(session: Session, pipeline: Job) -> None:
    """Give the stages that wait for nothing more their configs; one that cannot be filled in fails."""
    for stage in stages.unfilled(session, pipeline.id):
        try:
            stages.fill(session, stage.job_id, _filled(session, pipeline, stage))
        except JobError as error:
            said = {"code": error.code, "message": error.detail, "hint": error.hint, "data": error.data}
            said = {name: value for name, value in said.items() if value}
            changes = {"error": said}
            jobs.move(session, pipeline.tenant, stage.job_id, Event.FAIL, actor="engine", changes=changes)


def _filled(session: Session, pipeline: Job, stage: Unfilled) -> str:
    values = stages.values(session, pipeline.id, references(stage.config), max_bytes=MAX_FILLED_BYTES)
    try:
        return json.dumps(fill(stage.config, values))
    except RecursionError:
        raise JobError("the filled in config is nested too deeply", code="stage.config_too_deep") from None


def rerun(session: Session, pipeline: Job, end: Ended) -> bool:
    """Whether the end was the failure of a stage that is run again, and is none therefore."""
    if pipeline.type != Kind.PIPELINE or pipeline.state is not JobState.RUNNING or end.target is not JobState.FAILED:
        return False
    if not stages.take_rerun(session, end.job_id):
        return False
    changes = {"attempts": 0, "rescues": 0, "finished_at": None, "run_after": None, "paused": pipeline.paused}
    return jobs.move(session, end.tenant, end.job_id, Event.RERUN, actor="engine", changes=changes) is not None


def came_to(session: Session, pipeline: Job) -> dict[str, Any]:
    """What the stages came to, for the result of their pipeline."""
    by_name, is_capped = stages.came_to(session, pipeline.id, max_bytes=MAX_RESULT_BYTES)
    capped = f"results over {MAX_RESULT_BYTES:,} bytes together are left out here; read them at their stages"
    return {"stages": by_name, **({"capped": capped} if is_capped else {})}
