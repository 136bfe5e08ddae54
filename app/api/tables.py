"""``/v1/tables``: where imported rows live; declared by admins, seen by all."""

from __future__ import annotations

from typing import Any

from flask import url_for
from flask.views import MethodView
from flask_smorest import Blueprint

from app.api.table_schemas import DescribedSchema, TableSchema, TablesSchema
from app.domain.tables import Table
from app.persistence.tables import declaration
from app.services.tables import Described
from app.web.current import require_admin, services, tenant

blueprint = Blueprint("tables", __name__, url_prefix="/v1", description="Tables that imports fill and exports read.")


@blueprint.route("/tables")
class Tables(MethodView):
    """The collection."""

    @blueprint.response(200, TablesSchema)
    def get(self) -> Any:
        """List the tenant's tables, the built-in ones among them."""
        return {"items": services().tables.list(tenant())}

    @blueprint.arguments(TableSchema)
    @blueprint.response(201, TableSchema, headers={"Location": {"schema": {"type": "string"}}})
    def post(self, table: Table) -> Any:
        """Declare a table, or apply a higher version of its declaration; the one in force again changes nothing.

        Indexes that a changed declaration wants are built by a job of the system.
        """
        require_admin()
        declared = services().tables.declare(tenant(), table)
        return declared, 201, {"Location": url_for("tables.Table", name=declared.name)}


@blueprint.route("/tables/<string:name>", endpoint="Table")
class OneTable(MethodView):
    """One table."""

    @blueprint.response(200, DescribedSchema)
    def get(self, name: str) -> Any:
        """Describe a table: its declaration, and what stands in Postgres for it."""
        return _body(services().tables.describe(tenant(), name))

    @blueprint.response(204)
    def delete(self, name: str) -> None:
        """Drop a table and all its rows."""
        require_admin()
        services().tables.drop(tenant(), name)


def _body(described: Described) -> dict[str, Any]:
    return {
        **declaration(described.table),
        "built_in": described.built_in,
        "estimated_rows": described.existing.estimated_rows,
        "bytes_on_disk": described.existing.bytes_on_disk,
        "valid_indexes": described.existing.indexes,
        "missing_indexes": described.missing_indexes,
        "postgres_columns": described.existing.columns,
    }
