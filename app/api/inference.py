"""``/v1/tables:infer``: a declaration out of a file."""

from __future__ import annotations

from typing import Any

from flask_smorest import Blueprint
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app.api.table_schemas import TableSchema
from app.api.workbooks import NewWorkbookSchema
from app.persistence.tables import declaration
from app.services.inference import Proposal
from app.web.current import services, tenant

blueprint = Blueprint("inference", __name__, url_prefix="/v1", description="Declarations out of files.")


class InferredSourceSchema(Schema):
    """Where the file lies: exactly one of these."""

    text = fields.String(validate=validate.Length(1, 1_048_576), metadata={"description": "The file, or its begin."})
    upload = fields.UUID(metadata={"description": "The id of an upload."})
    s3_key = fields.String(
        validate=validate.Length(1, 1_024), metadata={"description": "Relative to the tenant's place in S3."}
    )

    @validates_schema
    def _one_of_them(self, data: dict[str, Any], **_: Any) -> None:
        if len(data) != 1:
            raise ValidationError(f"expected exactly one of text, upload and s3_key, got {', '.join(data) or 'none'}")


class InferSchema(Schema):
    """Which file, and what its table is to be called."""

    name = fields.String(required=True, validate=validate.Length(1, 59), metadata={"example": "orders"})
    source = fields.Nested(InferredSourceSchema, required=True)
    rows = fields.Integer(
        load_default=1_000,
        strict=True,
        validate=validate.Range(1, 5_000),
        metadata={"description": "About so many records are read."},
    )


class InferredFieldSchema(Schema):
    """A field of the file."""

    name = fields.String(metadata={"description": "As the header has it."})
    column = fields.String()
    type = fields.String()
    confidence = fields.Float(metadata={"description": "The part of the values that fits the type."})
    required = fields.Boolean(metadata={"description": "Each record that was read has a value."})
    unique = fields.Boolean(metadata={"description": "No value stands twice among the records that were read."})
    max_length = fields.Integer()
    examples = fields.List(fields.String())


class OneProposalSchema(Schema):
    """A declaration that can be posted to `/v1/tables`, once it has a key, and what it rests on."""

    declaration = fields.Nested(TableSchema)
    fields_ = fields.List(fields.Nested(InferredFieldSchema), data_key="fields", attribute="fields")
    key_candidates = fields.List(
        fields.String(),
        metadata={"description": "Columns with a value in every record, none twice; the first is taken."},
    )
    records = fields.Dict(metadata={"description": "read, blank, rejected, complete: whether the whole file was read."})
    file = fields.Dict(metadata={"description": "format, compression, encoding, delimiter, with a confidence."})


class SheetProposalSchema(OneProposalSchema):
    """The same of a sheet."""

    sheet = fields.String()


class ProposalSchema(OneProposalSchema):
    """What a file's rows could live in; of a workbook `sheets` and `workbook` alone."""

    sheets = fields.List(
        fields.Nested(SheetProposalSchema), metadata={"description": "Of an XLSX file: each sheet that has a header."}
    )
    workbook = fields.Nested(
        NewWorkbookSchema, metadata={"description": "What can be posted to `/v1/workbooks`, once the tables are there."}
    )


@blueprint.route("/tables:infer", methods=["POST"])
@blueprint.arguments(InferSchema)
@blueprint.response(200, ProposalSchema)
def infer(body: dict[str, Any]) -> Any:
    """Propose a table's declaration for a file, or one for each sheet of a workbook; nothing is stored."""
    found = services().inference.infer(tenant(), body["name"], rows=body["rows"], **body["source"])
    if found[0].sheet is None:
        return _told(found[0])
    sheets = [{"sheet": one.sheet, "table": one.table.name} for one in found]
    return {
        "sheets": [{**_told(one), "sheet": one.sheet} for one in found],
        "workbook": {"name": body["name"], "sheets": sheets},
    }


def _told(found: Proposal) -> dict[str, Any]:
    return {
        "declaration": declaration(found.table),
        "fields": found.fields,
        "key_candidates": found.key_candidates,
        "records": found.records,
        "file": found.file,
    }
