"""A table's declaration out of a file: its columns and their types, what may be the key, and how sure that is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from app.dataplane.dry_run import DryRun
from app.dataplane.origins import Origin, S3Origin, TextOrigin
from app.dataplane.plan import Options
from app.domain.errors import InvalidRequestError, JobError, Problem, TransientError, UnavailableError
from app.domain.job_types import Submission
from app.domain.ports import ObjectStore
from app.domain.tables import RESERVED_PREFIX, Column, ColumnType, Table
from config.settings import Settings

_KEY_TYPES: Final = (ColumnType.UUID, ColumnType.BIGINT, ColumnType.INTEGER, ColumnType.TEXT)
"""The likeliest first."""
_LIKE_A_KEY: Final = re.compile(r"(.*_)?(id|uuid|key|number|code)")
_NAME_CHARACTERS: Final = 59


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a file's rows could live in.

    Args:
        table: Its key is empty when no column may be one.
        fields: For each field of the file its header, column, type with a confidence, and examples.
        key_candidates: Columns that have a value in every record, none twice; the likeliest first.
        records: How many were read, refused, and whether they are all there are.
        file: What the file is: format, encoding and so on.
    """

    table: Table
    fields: list[dict[str, Any]]
    key_candidates: list[str]
    records: dict[str, Any]
    file: dict[str, Any]


class Inference:
    """The use case of looking at a file."""

    def __init__(self, objects: ObjectStore, settings: Settings, submission: Callable[[str], Submission]) -> None:
        self._objects = objects
        self._settings = settings
        self._submission = submission

    def infer(
        self,
        tenant: str,
        name: str,
        *,
        rows: int,
        text: str | None = None,
        upload: UUID | None = None,
        s3_key: str | None = None,
    ) -> Proposal:
        """Propose a table for a file, of which about ``rows`` records are read; it is stored nowhere.

        Args:
            name: What the table is to be called.
            text: The file itself; or ``upload`` or ``s3_key`` say where it lies.
        Raises:
            InvalidRequestError: The file cannot be read, or has no column.
            ForbiddenError: The key is not of the tenant's place.
            UnavailableError: S3 is away.
        """
        options = Options(
            {},
            encoding="auto",
            delimiter="auto",
            file_format="auto",
            ignore_unknown=True,
            tells_file=True,
            allowed_formats=("csv", "ndjson", "json"),  # a workbook takes too long for a request
        )
        origin = self._origin(tenant, text, upload, s3_key)
        try:
            report = DryRun(origin, None, options, self._settings, most_rows=rows).report()
        except TransientError as error:
            raise UnavailableError(error.detail) from error
        except JobError as error:
            raise _unreadable(error.code, error.detail) from error
        if report["problems"]:
            problem = report["problems"][0]
            raise _unreadable(problem["code"], problem["message"])
        return _proposal(name, report)

    def _origin(self, tenant: str, text: str | None, upload: UUID | None, s3_key: str | None) -> Origin:
        submission = self._submission(tenant)
        if upload is not None:
            return S3Origin(self._objects, submission.upload(upload, pointer="/source/upload"), submission.received)
        if s3_key is not None:
            return S3Origin(self._objects, submission.place(None, s3_key), submission.received)
        return TextOrigin((text or "").encode())


def _unreadable(code: str, detail: str) -> InvalidRequestError:
    return InvalidRequestError(detail, code=code, problems=(Problem("/source", detail),))


def _proposal(name: str, report: dict[str, Any]) -> Proposal:
    fields = _with_own_columns(report["schema"])
    if not fields:
        raise _unreadable("csv.empty", "expected a file with a header or a record, got none")
    complete = report["records"]["complete"]
    candidates = _key_candidates(fields) if report["records"]["read"] else []
    key = tuple(candidates[:1])
    columns = tuple(
        # What is true of some records may not be of all.
        Column(field["column"], ColumnType(field["type"]), required=field["required"] and complete)
        for field in fields
    )
    aliases = {field["name"]: field["column"] for field in fields if field["name"].strip().lower() != field["column"]}
    seen = {
        what: report[what]
        for what in report.keys() & {"format", "compression", *_said("encoding"), *_said("delimiter")}
    }
    return Proposal(Table(name, columns, key, aliases=aliases), fields, candidates, report["records"], seen)


def _said(what: str) -> tuple[str, str]:
    return what, f"{what}_confidence"


def _with_own_columns(fields: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fields, no two with one column, each a name that a column may have."""
    taken: set[str] = set()
    named = []
    for field in fields:
        plain = field["column"]
        if plain[0].isdigit() or plain.startswith(RESERVED_PREFIX):
            plain = f"c_{plain}"
        column, number = plain[:_NAME_CHARACTERS], 1
        while column in taken:
            number += 1
            column = f"{plain[: _NAME_CHARACTERS - 5]}_{number}"
        taken.add(column)
        named.append({**field, "column": column})
    return named


def _key_candidates(fields: Sequence[dict[str, Any]]) -> list[str]:
    """Columns that may be the key: those called like one first, then by type, then as they stand."""
    ranked = [
        (not _LIKE_A_KEY.fullmatch(field["column"]), _KEY_TYPES.index(ColumnType(field["type"])), place)
        for place, field in enumerate(fields)
        if field["required"] and field["unique"] and ColumnType(field["type"]) in _KEY_TYPES
    ]
    return [fields[place]["column"] for *_, place in sorted(ranked)]
