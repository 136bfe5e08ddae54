"""A table's declaration out of a file: its columns and their types, what may be the key, and how sure that is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from app.dataplane.dry_run import DryRun
from app.dataplane.inferring import plain
from app.dataplane.origins import Origin, S3Origin, TextOrigin
from app.dataplane.plan import Options
from app.dataplane.reading import is_sheet
from app.dataplane.sheets import sheets_of
from app.domain.errors import InvalidRequestError, JobError, Problem, TransientError, UnavailableError
from app.domain.job_types import Submission
from app.domain.ports import ObjectInfo, ObjectStore
from app.domain.tables import RESERVED_PREFIX, Column, ColumnType, Table
from app.services.places import Places
from config.settings import Settings

_KEY_TYPES: Final = (ColumnType.UUID, ColumnType.BIGINT, ColumnType.INTEGER, ColumnType.TEXT)
"""The likeliest first."""
_LIKE_A_KEY: Final = re.compile(r"(.*_)?(id|uuid|key|number|code)")
_NAME_CHARACTERS: Final = 59
_MOST_BYTES: Final = 8 * 2**20
_MOST_UNPACKED_BYTES: Final = 128 * 2**20
_MOST_CELLS: Final = 1_000_000
_MOST_SHEETS: Final = 20
_MEMORY_MB: Final = 1_024


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a file's rows could live in.

    Args:
        table: Its key is empty when no column may be one.
        fields: For each field of the file its header, column, type with a confidence, and examples.
        key_candidates: Columns that have a value in every record, none twice; the likeliest first.
        records: How many were read, refused, and whether they are all there are.
        file: What the file is: format, encoding and so on.
        sheet: Of a workbook, whose rows it is about.
    """

    table: Table
    fields: list[dict[str, Any]]
    key_candidates: list[str]
    records: dict[str, Any]
    file: dict[str, Any]
    sheet: str | None = None


class Inference:
    """The use case of looking at a file.

    Args:
        workbooks: Places of requests that look at a workbook, for each starts processes.
    """

    def __init__(
        self, objects: ObjectStore, settings: Settings, submission: Callable[[str], Submission], workbooks: Places
    ) -> None:
        self._objects = objects
        self._settings = settings
        self._submission = submission
        self._workbooks = workbooks

    def infer(
        self,
        tenant: str,
        name: str,
        *,
        rows: int,
        text: str | None = None,
        upload: UUID | None = None,
        s3_key: str | None = None,
    ) -> list[Proposal]:
        """Propose a table for a file, or for each sheet of a workbook that has a name in it; it is stored nowhere.

        Args:
            name: What the table is to be called; those of several sheets have the sheet's name behind it.
            rows: About so many records are read.
            text: The file itself; or ``upload`` or ``s3_key`` say where it lies.
        Raises:
            InvalidRequestError: The file cannot be read, or has no column.
            ForbiddenError: The key is not of the tenant's place.
            UnavailableError: S3 is away, or too many look at workbooks.
        """
        options = Options(
            {}, encoding="auto", delimiter="auto", file_format="auto", ignore_unknown=True, tells_file=True
        )
        origin = self._origin(tenant, text, upload, s3_key)
        look = DryRun(origin, None, options, self._settings, most_rows=rows)
        with _said_of_the_source():
            info = origin.info()
            if not is_sheet(origin, info, options):
                return [_proposal(name, _report(look))]
            with self._workbooks.taken():
                return self._of_sheets(name, look, info)

    def _of_sheets(self, name: str, look: DryRun, info: ObjectInfo) -> list[Proposal]:
        if info.size_bytes > _MOST_BYTES:
            raise JobError(
                f"a workbook of {info.size_bytes} bytes takes too long for a request, at most {_MOST_BYTES} are taken",
                code="xlsx.too_large",
            )
        look = replace(look, settings=_for_a_request(self._settings))
        sheets = sheets_of(look.settings, look.origin, info)
        if len(sheets) > _MOST_SHEETS:
            raise JobError(
                f"the workbook has {len(sheets)} sheets, at most {_MOST_SHEETS} are looked at", code="xlsx.too_large"
            )
        reports = [
            (sheet, report)
            for sheet in sheets
            if (report := _report(replace(look, options=replace(look.options, sheet=sheet)), may_be_empty=True))
        ]
        if not reports:
            raise _no_fields()
        taken: set[str] = set()
        names = [_untaken(f"{name}_{plain(sheet)}".strip("_"), taken) for sheet, _ in reports]
        names = [name] if len(reports) == 1 else names
        return [
            replace(_proposal(called, report), sheet=sheet)
            for called, (sheet, report) in zip(names, reports, strict=True)
        ]

    def _origin(self, tenant: str, text: str | None, upload: UUID | None, s3_key: str | None) -> Origin:
        submission = self._submission(tenant)
        if upload is not None:
            return S3Origin(self._objects, submission.upload(upload, pointer="/source/upload"), submission.received)
        if s3_key is not None:
            return S3Origin(self._objects, submission.place(None, s3_key), submission.received)
        return TextOrigin((text or "").encode())


def _for_a_request(settings: Settings) -> Settings:
    """The limits of who waits for an answer."""
    return settings.model_copy(
        update={
            "max_workbook_bytes": min(settings.max_workbook_bytes, _MOST_UNPACKED_BYTES),
            "max_workbook_cells": min(settings.max_workbook_cells, _MOST_CELLS),
            "workbook_memory_mb": min(settings.workbook_memory_mb, _MEMORY_MB),
        }
    )


@contextmanager
def _said_of_the_source() -> Iterator[None]:
    """What is wrong with the file is a fault of the request."""
    try:
        yield
    except TransientError as error:
        raise UnavailableError(error.detail) from error
    except JobError as error:
        raise InvalidRequestError(
            error.detail, code=error.code, problems=(Problem("/source", error.detail),)
        ) from error


def _report(look: DryRun, *, may_be_empty: bool = False) -> dict[str, Any]:
    """What was found; nothing of a sheet without a name, where such are left out.

    Raises:
        JobError: The file cannot be read.
    """
    report = look.report()
    for problem in report["problems"]:
        if may_be_empty and problem["code"] == "csv.empty":
            return {}
        raise JobError(problem["message"], code=problem["code"])
    return report


def _no_fields() -> JobError:
    return JobError("expected a file with a header or a record, got none", code="csv.empty")


def _proposal(name: str, report: dict[str, Any]) -> Proposal:
    fields = _with_own_columns(report["schema"])
    if not fields:
        raise _no_fields()
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
        column = field["column"]
        if column[0].isdigit() or column.startswith(RESERVED_PREFIX):
            column = f"c_{column}"
        named.append({**field, "column": _untaken(column, taken)})
    return named


def _untaken(wanted: str, taken: set[str]) -> str:
    """``wanted``, or the like with a number behind it, which is taken from then on."""
    name, number = wanted[:_NAME_CHARACTERS], 1
    while name in taken:
        number += 1
        name = f"{wanted[: _NAME_CHARACTERS - 5]}_{number}"
    taken.add(name)
    return name


def _key_candidates(fields: Sequence[dict[str, Any]]) -> list[str]:
    """Columns that may be the key: those called like one first, then by type, then as they stand."""
    ranked = [
        (not _LIKE_A_KEY.fullmatch(field["column"]), _KEY_TYPES.index(ColumnType(field["type"])), place)
        for place, field in enumerate(fields)
        if field["required"] and field["unique"] and ColumnType(field["type"]) in _KEY_TYPES
    ]
    return [fields[place]["column"] for *_, place in sorted(ranked)]
