"""``/v1/tables/{name}/records``: rows of a table by query, and direct upserts."""

from __future__ import annotations

from typing import Any

from flask import make_response
from flask_smorest import Blueprint

from app.api.query_schemas import (
    ExplainRequestSchema,
    ExplainSchema,
    RecordPreviewRequestSchema,
    RecordPreviewSchema,
    explained_body,
)
from app.api.table_schemas import (
    CountQuerySchema,
    CountSchema,
    CursorSchema,
    QuerySchema,
    RecordPageSchema,
    RecordSchema,
    UpsertedSchema,
    UpsertSchema,
)
from app.web.current import services, tenant
from app.web.paging import link_next, page

blueprint = Blueprint("records", __name__, url_prefix="/v1", description="Rows of tables, by VQL.")


@blueprint.route("/tables/<string:name>/records:query", methods=["POST"])
@blueprint.arguments(QuerySchema)
@blueprint.arguments(CursorSchema, location="query")
@blueprint.response(200, RecordPageSchema, headers={"Link": {"schema": {"type": "string"}}})
def query(body: dict[str, Any], arguments: dict[str, Any], name: str) -> Any:
    """Read a page of rows; post the same body to the Link, or with ``next_cursor`` in it, for the next page."""
    found = services().records.query(
        tenant(),
        name,
        body["vql"],
        limit=body["limit"],
        cursor=arguments["cursor"] or body["cursor"],
        pointer="/vql",
    )
    return link_next(make_response(page(found.rows, found.next_cursor)), found.next_cursor)


@blueprint.route("/tables/<string:name>/records/<path:record_id>")
@blueprint.response(200, RecordSchema)
def shown(name: str, record_id: str) -> Any:
    """Read one row by its key: the value as text; of several columns a JSON array of their values as text."""
    values = services().records.get(tenant(), name, record_id)
    return {"id": record_id, "values": values, "valid": True, "messages": []}


@blueprint.route("/tables/<string:name>/records:count", methods=["POST"])
@blueprint.arguments(CountQuerySchema)
@blueprint.response(200, CountSchema)
def count(body: dict[str, Any], name: str) -> Any:
    """Count the rows that meet a query's conditions."""
    return {"count": services().records.count(tenant(), name, body["vql"], pointer="/vql")}


@blueprint.route("/tables/<string:name>/records:explain", methods=["POST"])
@blueprint.arguments(ExplainRequestSchema())
@blueprint.response(200, ExplainSchema)
def explain(body: dict[str, Any], name: str) -> Any:
    """Say how a query would run: rows, bytes and cost as estimated, the indexes it uses, its plan and SQL."""
    as_json = body["format"] != "csv"
    explained = services().queries.explain(tenant(), name, body["vql"], as_json=as_json, pointer="/vql")
    return explained_body(explained, services().queries.would_be(explained.estimate))


@blueprint.route("/tables/<string:name>/records:preview", methods=["POST"])
@blueprint.arguments(RecordPreviewRequestSchema())
@blueprint.response(200, RecordPreviewSchema)
def preview(body: dict[str, Any], name: str) -> Any:
    """Read a query's first rows with its plan, before a job is made of it."""
    found = services().queries.preview(tenant(), name, body["vql"], limit=body["limit"], pointer="/vql")
    becomes_job = services().queries.would_be(found.explained.estimate)
    return {"items": found.rows, **explained_body(found.explained, becomes_job)}


@blueprint.route("/tables/<string:name>/records:upsert", methods=["POST"])
@blueprint.arguments(UpsertSchema)
@blueprint.response(200, UpsertedSchema)
def upsert(body: dict[str, Any], name: str) -> Any:
    """Write up to 1,000 rows at once; a bad row is reported and keeps none of the others out."""
    return services().upserts.upsert(
        tenant(), name, body["rows"], mode=body["mode"], companions=body["companions"], pointer="/rows"
    )
