"""What declared tables look like on the native API."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, post_load, validate

from app.dataplane.plan import Mode
from app.domain.tables import Column, ColumnType, Index, Table


class ColumnSchema(Schema):
    """A column."""

    name = fields.String(required=True, metadata={"example": "email"})
    type = fields.String(required=True, validate=validate.OneOf([kind.value for kind in ColumnType]))
    required = fields.Boolean(load_default=False, metadata={"description": "An empty value is a bad row."})
    max_length = fields.Integer(
        load_default=None,
        allow_none=True,
        strict=True,
        validate=validate.Range(1, 10_485_760),
        metadata={"description": "Characters, for text; a longer value is a bad row."},
    )
    format = fields.String(load_default=None, allow_none=True, validate=validate.OneOf(["email"]))
    filterable = fields.Boolean(load_default=False, metadata={"description": "Keep its different values for pickers."})

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Column:
        return Column(**{**data, "type": ColumnType(data["type"])})


class IndexSchema(Schema):
    """A secondary index that is wanted."""

    columns = fields.List(fields.String(), required=True, validate=validate.Length(1, 32))
    trigram = fields.Boolean(load_default=False, metadata={"description": "For substring and fuzzy search in text."})
    words = fields.Boolean(load_default=False, metadata={"description": "For searches of whole words in text."})

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Index:
        return Index(**{**data, "columns": tuple(data["columns"])})


class TableSchema(Schema):
    """A table's declaration."""

    name = fields.String(required=True, metadata={"example": "orders"})
    columns = fields.List(fields.Nested(ColumnSchema), required=True, validate=validate.Length(1, 1_500))
    key = fields.List(
        fields.String(),
        required=True,
        validate=validate.Length(1, 32),
        metadata={"description": "Columns whose values are unique together; an import upserts by them."},
    )
    indexes = fields.List(fields.Nested(IndexSchema), load_default=list, validate=validate.Length(0, 64))
    generated_key = fields.List(
        fields.String(),
        load_default=list,
        metadata={"description": "For a key of one uuid column: a row without a key gets UUID5 over these columns."},
    )
    aliases = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        load_default=dict,
        metadata={"description": "Header names that are taken for a column.", "example": {"phone": "mobile_phone"}},
    )
    version = fields.Integer(
        load_default=1,
        strict=True,
        validate=validate.Range(1, 2**31 - 1),
        metadata={"description": "A changed declaration needs a higher one."},
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Table:
        parts = {name: tuple(data[name]) for name in ("columns", "key", "indexes", "generated_key")}
        return Table(**{**data, **parts})


class TablesSchema(Schema):
    """Every table of the tenant."""

    items = fields.List(fields.Nested(TableSchema))


class DescribedSchema(TableSchema):
    """A table's declaration and what stands in Postgres for it."""

    built_in = fields.Boolean()
    estimated_rows = fields.Integer(metadata={"description": "Of the planner; ask records:count for the number."})
    bytes_on_disk = fields.Integer()
    valid_indexes = fields.List(fields.String(), metadata={"description": "Secondary indexes that can be used now."})
    missing_indexes = fields.List(
        fields.String(), metadata={"description": "Declared, and not built yet, or put off by an import."}
    )
    postgres_columns = fields.Dict(
        keys=fields.String(), values=fields.String(), metadata={"description": "Names to types; system columns too."}
    )


class QuerySchema(Schema):
    """Which rows."""

    vql = fields.Dict(
        keys=fields.String(),
        load_default=dict,
        metadata={
            "description": "where, select_columns, order_by, search_after, limit, page (docs/vql.md).",
            "example": {"where": {"keyword_match": {"must": {"country": ["DE", "FR"]}}}, "order_by": []},
        },
    )
    limit = fields.Integer(load_default=None, allow_none=True, strict=True, validate=validate.Range(1, 1_000))
    cursor = fields.String(load_default=None, allow_none=True)


class CursorSchema(Schema):
    """Where the page begins, as the Link header of the page before says; wins over the body's."""

    cursor = fields.String(load_default=None)


class RecordMessageSchema(Schema):
    """What is wrong with a record."""

    field = fields.String(allow_none=True, metadata={"description": "The column at fault; null: all of it."})
    code = fields.String()
    message = fields.String()


class RecordSchema(Schema):
    """One record: a row of a table, or one that a job refused."""

    id = fields.String(metadata={"description": "A row's key, or the job's id and the line."})
    values = fields.Dict(
        allow_none=True, metadata={"description": "By column. Of a refused record text, null when it cannot be read."}
    )
    valid = fields.Boolean(metadata={"description": "Whether it is in the table, for a refused one: since a replay."})
    messages = fields.List(fields.Nested(RecordMessageSchema), metadata={"description": "Why it was refused."})


class RecordPageSchema(Schema):
    """A page of rows."""

    items = fields.List(
        fields.Dict(), metadata={"description": "By column; numeric is text, so that no digit is lost."}
    )
    next_cursor = fields.String(allow_none=True)


class CountQuerySchema(Schema):
    """Which rows to count."""

    vql = fields.Dict(keys=fields.String(), load_default=dict)


class CountSchema(Schema):
    """How many."""

    count = fields.Integer()


class UpsertSchema(Schema):
    """Rows to write."""

    rows = fields.List(
        fields.Dict(keys=fields.String()),
        required=True,
        validate=validate.Length(min=1),
        metadata={
            "description": "At most 1,000, by column; a column that a row lacks keeps its value, null and empty text "
            "are NULL. Of rows with one key the last wins.",
            "example": [{"first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com"}],
        },
    )
    mode = fields.Enum(
        Mode,
        by_value=True,
        load_default=Mode.UPSERT,
        metadata={"description": "insert leaves rows alone that are there, update those that are not."},
    )
    companions = fields.Boolean(
        load_default=False, metadata={"description": "Take company_* of contacts too; needs mode upsert."}
    )


class RefusedRowSchema(Schema):
    """A row that was not written."""

    row = fields.Integer(metadata={"description": "Its place in rows, from 0."})
    field = fields.String(allow_none=True)
    code = fields.String(metadata={"example": "value.integer"})
    message = fields.String()


class UpsertedSchema(Schema):
    """What became of the rows; the good ones are in, all of them."""

    inserted = fields.Integer()
    updated = fields.Integer()
    unchanged = fields.Integer()
    superseded = fields.Integer(metadata={"description": "Overtaken by a later row with the same key."})
    skipped = fields.Integer(metadata={"description": "Left out by the mode."})
    failed = fields.List(fields.Nested(RefusedRowSchema))
    uuids = fields.List(
        fields.String(allow_none=True),
        allow_none=True,
        metadata={"description": "The rows' keys in order, null for failed ones; null for a table keyed otherwise."},
    )
    companies_inserted = fields.Integer(metadata={"description": "With companions."})
    companies_updated = fields.Integer(metadata={"description": "With companions."})
