"""``/v1/schedules``: templates of jobs and when they are made."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, make_response, request
from flask.views import MethodView
from flask_smorest import Blueprint

from app.api.job_schemas import JobPageSchema, JobSchema, job_json
from app.api.schedule_schemas import (
    ChangeScheduleSchema,
    CountQuerySchema,
    CreateScheduleSchema,
    PageQuerySchema,
    PreviewRulesSchema,
    PreviewSchema,
    RunsQuerySchema,
    SchedulePageSchema,
    ScheduleSchema,
)
from app.domain.schedules import Schedule
from app.services.schedules import Preview
from app.web.current import actor, services, tenant
from app.web.paging import decode_cursor, encode_cursor, link_next, page

blueprint = Blueprint("schedules", __name__, url_prefix="/v1", description="Templates that make jobs by rules.")
_ETAG = {"ETag": {"schema": {"type": "string"}}}
_IF_MATCH = {"in": "header", "name": "If-Match", "schema": {"type": "string"}}


def _tagged(schedule: Schedule, status: int = 200, **headers: str) -> Any:
    return schedule, status, {"ETag": f'"{schedule.version}"', **headers}


def _versions() -> frozenset[str] | None:
    """The versions that If-Match names; ``None`` for any."""
    if "If-Match" not in request.headers or request.if_match.star_tag:
        return None
    return frozenset(request.if_match.as_set(include_weak=True))


@blueprint.route("/schedules")
class Schedules(MethodView):
    """The collection."""

    @blueprint.arguments(CreateScheduleSchema())
    @blueprint.response(201, ScheduleSchema, headers={"Location": {"schema": {"type": "string"}}, **_ETAG})
    def post(self, body: dict[str, Any]) -> Any:
        """Make a schedule; it fires from now on."""
        schedule = services().schedules.create(tenant(), body, actor=actor())
        return _tagged(schedule, 201, Location=f"{blueprint.url_prefix}/schedules/{schedule.id}")

    @blueprint.arguments(PageQuerySchema(), location="query", unknown="raise")
    @blueprint.response(200, SchedulePageSchema)
    def get(self, query: dict[str, Any]) -> Any:
        """List schedules, newest first."""
        limit = query["limit"]
        found = services().schedules.find(tenant(), limit=limit + 1, before=decode_cursor(query["cursor"]))
        next_cursor = encode_cursor(found[limit - 1].id) if len(found) > limit else None
        body = SchedulePageSchema().dump(page(found[:limit], next_cursor))
        return link_next(make_response(body), next_cursor)


@blueprint.route("/schedules:preview", methods=["POST"])
@blueprint.arguments(PreviewRulesSchema())
@blueprint.response(200, PreviewSchema)
def preview(body: dict[str, Any]) -> Preview:
    """Say what rules mean, in words and by their next fires."""
    tenant()
    return services().schedules.preview(body["rules"], body["count"])


@blueprint.route("/schedules/<uuid:schedule_id>", endpoint="Schedule")
class OneSchedule(MethodView):
    """One schedule."""

    @blueprint.response(200, ScheduleSchema, headers=_ETAG)
    def get(self, schedule_id: UUID) -> Any:
        """Read a schedule."""
        return _tagged(services().schedules.get(tenant(), schedule_id))

    @blueprint.arguments(ChangeScheduleSchema())
    @blueprint.response(200, ScheduleSchema, headers=_ETAG)
    @blueprint.alt_response(412, description="It is not at a version that If-Match names.")
    @blueprint.doc(parameters=[_IF_MATCH])
    def patch(self, body: dict[str, Any], schedule_id: UUID) -> Any:
        """Change a schedule; jobs it has made stay as they are.

        With ``If-Match`` it is changed only while it is at that version.
        """
        changed = services().schedules.update(tenant(), schedule_id, body, actor=actor(), versions=_versions())
        return _tagged(changed)

    @blueprint.response(204)
    @blueprint.alt_response(412, description="It is not at a version that If-Match names.")
    @blueprint.doc(parameters=[_IF_MATCH])
    def delete(self, schedule_id: UUID) -> None:
        """Delete a schedule; its jobs stay and go on."""
        services().schedules.delete(tenant(), schedule_id, versions=_versions())


@blueprint.route("/schedules/<uuid:schedule_id>:pause", methods=["POST"])
@blueprint.arguments(RunsQuerySchema(), location="query")
@blueprint.response(200, ScheduleSchema, headers=_ETAG)
def pause(query: dict[str, Any], schedule_id: UUID) -> Any:
    """Stop a schedule from firing, and pause its jobs that are not over (``runs=false`` leaves them)."""
    return _tagged(services().schedules.pause(tenant(), schedule_id, actor=actor(), runs=query["runs"]))


@blueprint.route("/schedules/<uuid:schedule_id>:resume", methods=["POST"])
@blueprint.arguments(RunsQuerySchema(), location="query")
@blueprint.response(200, ScheduleSchema, headers=_ETAG)
def resume(query: dict[str, Any], schedule_id: UUID) -> Any:
    """Let a schedule fire again, and its paused jobs go on; missed fires follow its policy."""
    return _tagged(services().schedules.resume(tenant(), schedule_id, actor=actor(), runs=query["runs"]))


@blueprint.route("/schedules/<uuid:schedule_id>:trigger", methods=["POST"])
@blueprint.response(202, JobSchema, headers={"Location": {"schema": {"type": "string"}}})
def trigger(schedule_id: UUID) -> Any:
    """Make a job now; the timetable stays as it is. A paused schedule is 409."""
    job = services().schedules.trigger(tenant(), schedule_id, actor=actor())
    headers = {"Location": f"{blueprint.url_prefix}/jobs/{job.id}", "Retry-After": "1"}
    return Response(job_json(job), 202, headers, mimetype="application/json")


@blueprint.route("/schedules/<uuid:schedule_id>:preview")
@blueprint.arguments(CountQuerySchema(), location="query", unknown="raise")
@blueprint.response(200, PreviewSchema)
def preview_of(query: dict[str, Any], schedule_id: UUID) -> Preview:
    """Read a schedule's rules in words, and its next fires."""
    return services().schedules.preview_of(tenant(), schedule_id, query["count"])


@blueprint.route("/schedules/<uuid:schedule_id>/jobs")
@blueprint.arguments(PageQuerySchema(), location="query", unknown="raise")
@blueprint.response(200, JobPageSchema)
def jobs_of(query: dict[str, Any], schedule_id: UUID) -> Any:
    """List the jobs that a schedule made, newest first."""
    limit, before = query["limit"], decode_cursor(query["cursor"])
    found = services().schedules.jobs_of(tenant(), schedule_id, limit=limit + 1, before=before)
    next_cursor = encode_cursor(found[limit - 1].id) if len(found) > limit else None
    body = JobPageSchema().dump(page(found[:limit], next_cursor))
    return link_next(make_response(body), next_cursor)
