"""``/v1/workbooks``: named groups of tables, each filled by a sheet; made by admins, seen by all."""

from __future__ import annotations

from typing import Any

from flask import url_for
from flask.views import MethodView
from flask_smorest import Blueprint
from marshmallow import Schema, fields, post_load, validate

from app.domain.workbooks import Sheet
from app.web.current import actor, require_admin, services, tenant

blueprint = Blueprint("workbooks", __name__, url_prefix="/v1", description="Named groups of tables.")


class SheetSchema(Schema):
    """A sheet and where its rows go."""

    sheet = fields.String(
        required=True, validate=validate.Length(1, 255), metadata={"description": "Its name in the file."}
    )
    table = fields.String(required=True, validate=validate.Length(1, 63), metadata={"description": "A declared table."})

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Sheet:
        return Sheet(**data)


class SheetsSchema(Schema):
    """The sheets of a workbook."""

    sheets = fields.List(fields.Nested(SheetSchema), required=True, validate=validate.Length(1, 100))


class NewWorkbookSchema(SheetsSchema):
    """A workbook to be made."""

    name = fields.String(required=True, metadata={"example": "crm", "description": "Small letters, digits, - and _."})


class WorkbookSchema(NewWorkbookSchema):
    """A workbook."""

    created_by = fields.String()
    created_at = fields.AwareDateTime()
    updated_at = fields.AwareDateTime()


class WorkbooksSchema(Schema):
    """The tenant's workbooks."""

    items = fields.List(fields.Nested(WorkbookSchema))


@blueprint.route("/workbooks")
class Workbooks(MethodView):
    """The collection."""

    @blueprint.response(200, WorkbooksSchema)
    def get(self) -> Any:
        """List the tenant's workbooks."""
        return {"items": services().workbooks.of_tenant(tenant())}

    @blueprint.arguments(NewWorkbookSchema)
    @blueprint.response(201, WorkbookSchema, headers={"Location": {"schema": {"type": "string"}}})
    def post(self, body: dict[str, Any]) -> Any:
        """Name a group of tables; an import that names it loads each sheet into its table."""
        require_admin()
        made = services().workbooks.create(tenant(), body["name"], body["sheets"], actor=actor())
        return made, 201, {"Location": url_for("workbooks.Workbook", workbook=made.name)}


@blueprint.route("/workbooks/<string(maxlength=63):workbook>", endpoint="Workbook")
class OneWorkbook(MethodView):
    """One workbook."""

    @blueprint.response(200, WorkbookSchema)
    def get(self, workbook: str) -> Any:
        """Read which sheet goes to which table."""
        return services().workbooks.get(tenant(), workbook)

    @blueprint.arguments(SheetsSchema)
    @blueprint.response(200, WorkbookSchema)
    def patch(self, body: dict[str, Any], workbook: str) -> Any:
        """Give a workbook other sheets; imports that were submitted keep those of then."""
        require_admin()
        return services().workbooks.change(tenant(), workbook, body["sheets"], actor=actor())

    @blueprint.response(204)
    def delete(self, workbook: str) -> None:
        """Forget a workbook; its tables and their rows stay."""
        require_admin()
        services().workbooks.remove(tenant(), workbook, actor=actor())
