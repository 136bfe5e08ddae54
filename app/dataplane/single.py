"""One record by itself: the text that the ledger has of it, as fields, and with other values in some of them."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from app.dataplane.chunks import NULL, Chunk, Encoding
from app.dataplane.faults import Fault
from app.dataplane.formats import Format
from app.dataplane.json_records import value_of
from app.dataplane.json_values import Shape, json_text
from app.dataplane.plan import Plan
from app.dataplane.records import RecordReader
from app.domain.failed_records import FailedRecord


def read_again(records: Sequence[FailedRecord], plan: Plan) -> Chunk:
    """The records as a reader gives them, each read by itself: what one lacks is not sought in the next."""
    lines: list[list[bytes]] = []
    members: list[int] = []
    faults: dict[int, Fault] = {}
    for place, record in enumerate(records):
        values = read_one(record, plan)
        if isinstance(values, Fault):
            faults[place] = values
        else:
            lines.append(values)
            members.append(place)
    return Chunk(
        data=b"",
        first_byte=0,
        first_line=0,
        count=len(records),
        columns=[list(column) for column in zip(*lines, strict=True)] if lines else [[] for _ in range(plan.width)],
        members=members,
        faults=faults,
        blanks=[],
        lines=0,
    )


def read_one(record: FailedRecord, plan: Plan) -> list[bytes] | Fault:
    """The fields of a record's text, in UTF-8, or why they cannot be had."""
    data, encoding = _bytes_of(record, plan)
    if plan.file_format is not Format.CSV:
        return _of_object(data, plan)
    reader = RecordReader(
        BytesIO(data).read, encoding=encoding, delimiter=plan.delimiter, max_field_bytes=plan.max_field_bytes
    )
    chunks = list(reader.chunks(plan.width))
    found = sum(chunk.count for chunk in chunks)
    for chunk in chunks:
        for fault in chunk.faults.values():
            return fault
    if found != 1 or chunks[0].blanks:
        return Fault("csv.record", f"expected one record, got {found - sum(len(chunk.blanks) for chunk in chunks)}")
    return [column[0] for column in chunks[0].columns]


def _bytes_of(record: FailedRecord, plan: Plan) -> tuple[bytes, Encoding]:
    if record.corrected is None and record.raw_is_base64:
        return base64.b64decode(record.raw or ""), plan.encoding
    text = record.raw if record.corrected is None else record.corrected
    return (text or "").encode(), Encoding.UTF_8


def _of_object(data: bytes, plan: Plan) -> list[bytes] | Fault:
    value = value_of(data)
    shape = Shape(plan.names, plan.ignore_unknown, plan.max_field_bytes)
    texts = value if isinstance(value, Fault) else shape.row(value)
    if isinstance(texts, Fault):
        return texts
    null = NULL if plan.keeps_empty else b""
    return [null if text is None else text.encode() for text in texts]


def texts_of(record: FailedRecord, plan: Plan) -> list[str] | Fault:
    """The fields of a record's text for a person to read; NULL is empty."""
    fields = read_one(record, plan)
    return fields if isinstance(fields, Fault) else ["" if field == NULL else field.decode() for field in fields]


def with_values(record: FailedRecord, plan: Plan, values: Mapping[str, Any]) -> str:
    """A record's text with other values in some fields; in all of them, when it cannot be read.

    Args:
        values: By the names of the plan; text, or of JSON any value.
    """
    if plan.file_format is not Format.CSV:
        return _object_with(record, plan, values)
    fields = read_one(record, plan)
    kept = [""] * plan.width if isinstance(fields, Fault) else ["" if one == NULL else one.decode() for one in fields]
    text = io.StringIO()
    row = [values.get(name, old) for name, old in zip(plan.names, kept, strict=True)]
    csv.writer(text, delimiter=plan.delimiter, lineterminator="").writerow(row)
    return text.getvalue()


def _object_with(record: FailedRecord, plan: Plan, values: Mapping[str, Any]) -> str:
    readable = not isinstance(read_one(record, plan), Fault)
    value = value_of(_bytes_of(record, plan)[0]) if readable else {}
    return json_text({**{name: value[name] for name in plan.names if name in value}, **values})
