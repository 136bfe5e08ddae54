"""Correction of a ledger by a file: rows by their id or line, with other values in columns of the import's file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from app.dataplane.faults import Fault
from app.dataplane.ledger_csv import COLUMNS, own_columns
from app.dataplane.origins import S3Origin, seekable
from app.dataplane.plan import Plan
from app.dataplane.single import read_one, texts_of, with_values
from app.domain.errors import InvalidRequestError, JobError, Problem, TransientError, UnavailableError
from app.domain.failed_records import FailedRecord, record_id
from app.domain.job_types import Submission
from app.domain.ports import ObjectRef, ObjectStore
from app.domain.texts import is_storable
from app.persistence import failed_records
from app.persistence.sessions import Sessions
from app.services.replays import begun_import, value_problems
from app.services.row_texts import RowTexts, Texts

_ROWS_AT_ONCE: Final = 1_000
_MOST_ROWS: Final = 100_000
_MOST_BYTES: Final = 64 * 2**20
_MOST_PROBLEMS: Final = 20
_MOST_CHARACTERS: Final = 32 * 2**20
"""Of corrected texts that are held before they are written."""
_LINE_DIGITS: Final = 18


@dataclass(frozen=True, slots=True)
class Corrected:
    """How many rows got another text, and how many are as the ledger has them."""

    corrected: int
    unchanged: int


class Corrections:
    """The use case.

    Args:
        submission: What a tenant's uploads are asked of.
    """

    def __init__(
        self, sessions: Sessions, objects: ObjectStore, submission: Callable[[str], Submission], texts: RowTexts
    ) -> None:
        self._sessions = sessions
        self._objects = objects
        self._submission = submission
        self._texts = texts

    def apply(
        self, tenant: str, job_id: UUID, *, text: str | None = None, upload: str | None = None, at: str = ""
    ) -> Corrected:
        """Correct the rows that a CSV file names: all of them, or none when one cannot be.

        Args:
            text: The file, or ``upload``: the id or key of one.
            at: Where they stand in the request.
        Raises:
            NotFoundError: The tenant has no such job.
            ConflictError: It is no import that has begun.
            InvalidRequestError: With each row at fault: not in the ledger, loaded already, or no row of the file then.
            UnavailableError: S3 is away.
        """
        with self._sessions.begin() as session:
            job, plan = begun_import(session, tenant, job_id)
        with (
            self._opened(tenant, text, upload, at) as file,
            self._texts.of(job, plan) as texts,
            self._sessions.begin() as session,
        ):
            work = _Work(session, tenant, job_id, plan, texts)
            try:
                work.read(file)
            except (UnicodeDecodeError, csv.Error) as error:
                work.problems.append(Problem("", f"expected CSV in UTF-8: {error}"))
            if work.problems:
                raise _misfit(work.problems, f"{at}/{'upload' if upload else 'text'}")
            return Corrected(work.corrected, work.unchanged)

    @contextmanager
    def _opened(self, tenant: str, text: str | None, upload: str | None, at: str) -> Iterator[io.TextIOBase]:
        if upload is None:
            if not is_storable(text):
                raise _misfit([Problem("", "U+0000 and lone surrogates are not allowed")], f"{at}/text")
            yield io.StringIO((text or "").removeprefix("\ufeff"), newline="")
            return
        origin = S3Origin(self._objects, self._uploaded(tenant, upload, at), self._submission(tenant).received)
        try:
            info = origin.info()
            if info.size_bytes > _MOST_BYTES:
                detail = f"expected at most {_MOST_BYTES} bytes, got {info.size_bytes}"
                raise _misfit([Problem("", detail)], f"{at}/upload")
            with seekable(origin, info) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as lines:
                yield lines
        except TransientError as error:
            raise UnavailableError(error.detail) from error
        except JobError as error:
            raise _misfit([Problem("", error.detail)], f"{at}/upload") from error

    def _uploaded(self, tenant: str, upload: str, at: str) -> ObjectRef:
        submission = self._submission(tenant)
        try:
            return submission.upload(UUID(upload), pointer=f"{at}/upload")
        except ValueError:
            return submission.place(None, upload)


def _misfit(problems: Sequence[Problem], at: str) -> InvalidRequestError:
    return InvalidRequestError(
        "the file does not fit the ledger; nothing of it was taken",
        code="ledger.corrections_invalid",
        problems=tuple(Problem(f"{at}{one.pointer}", one.detail) for one in problems[:_MOST_PROBLEMS]),
    )


@dataclass(slots=True)
class _Work:
    """A file on its way into the ledger; ``problems`` have pointers below the file: ``/rows/1`` follows the header."""

    session: Session
    tenant: str
    job_id: UUID
    plan: Plan
    texts: Texts
    corrected: int = 0
    unchanged: int = 0
    problems: list[Problem] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def read(self, file: io.TextIOBase) -> None:
        """Go through the file, until there are too many problems."""
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        self._check_header(header)
        if self.problems:
            return
        numbered = ((number, row) for number, row in enumerate(rows, start=1) if row)
        while some := list(islice(numbered, _ROWS_AT_ONCE)):
            if some[-1][0] > _MOST_ROWS:
                self.problems.append(Problem(f"/rows/{_MOST_ROWS + 1}", f"expected at most {_MOST_ROWS} rows"))
            if len(self.problems) >= _MOST_PROBLEMS:
                return
            self._correct(header, some)

    def _check_header(self, header: Sequence[str]) -> None:
        known = {*COLUMNS, *own_columns(self.plan).values()}
        for name in dict.fromkeys(header):
            if name not in known:
                self.problems.append(Problem("/header", f"{name!r} is no column of the file, nor one of the ledger"))
            elif header.count(name) > 1:
                self.problems.append(Problem("/header", f"{name!r} stands there more than once"))
        if not {"id", "line"} & set(header):
            self.problems.append(Problem("/header", "expected a column id or line, which says whose values they are"))

    def _correct(self, header: Sequence[str], some: Sequence[tuple[int, list[str]]]) -> None:
        rows: dict[int, tuple[int, dict[str, str]]] = {}
        for number, fields in some:
            line = self._line(number, header, fields)
            if line is not None:
                rows[line] = (number, dict(zip(header, fields, strict=True)))
        records = failed_records.of_lines(self.session, self.tenant, self.job_id, rows)
        texts: dict[int, str] = {}
        characters = 0
        # In the order of the import's file, which is read for texts that the ledger does not have.
        for line, (number, row) in sorted(rows.items()):
            record = records.get(line)
            if record is None:
                self._refuse(number, f"the ledger of job {self.job_id} has no line {line}", "/line")
            elif record.resolved_at is not None:
                self._refuse(number, f"line {line} was loaded by a replay already", "/line")
            else:
                self._take(number, self.texts.needed(record), row, texts)
                characters += len(texts.get(line, ""))
            if characters > _MOST_CHARACTERS:
                self._write(texts, rows)
                characters = 0
        self._write(texts, rows)

    def _write(self, texts: dict[int, str], rows: Mapping[int, tuple[int, dict[str, str]]]) -> None:
        """Have the ledger take what ``texts`` holds, which is empty then."""
        got = failed_records.correct(self.session, self.tenant, self.job_id, texts)
        for line in sorted(texts.keys() - got):
            self._refuse(rows[line][0], f"line {line} was loaded by a replay meanwhile", "/line")
        self.corrected += len(got)
        texts.clear()

    def _line(self, number: int, header: Sequence[str], row: Sequence[str]) -> int | None:
        """The line that a row is for; ``None`` when it is refused."""
        values = dict(zip(header, row, strict=False))
        said = values.get("line") or values.get("id", "").rpartition(":")[2]
        line = int(said) if said.isascii() and said.isdigit() and len(said) <= _LINE_DIGITS else -1
        named = values.get("id")
        if len(row) != len(header):
            self._refuse(number, f"expected {len(header)} fields as in the header, got {len(row)}")
        elif line < 0:
            self._refuse(number, f"expected the number of a line, got {said!r:.100}", "/line")
        elif named and named != record_id(self.job_id, line):
            self._refuse(number, f"expected {record_id(self.job_id, line)}, got {named!r:.100}", "/id")
        elif line in self.seen:
            self._refuse(number, f"line {line} stands in the file more than once", "/line")
        else:
            self.seen.add(line)
            return line
        return None

    def _take(self, number: int, record: FailedRecord, row: Mapping[str, str], texts: dict[int, str]) -> None:
        given = {name: row[label] for name, label in own_columns(self.plan).items() if label in row}
        kept = texts_of(record, self.plan)
        if isinstance(kept, Fault):
            changed = given if any(given.values()) else {}
        else:
            before = dict(zip(self.plan.names, kept, strict=True))
            changed = {name: value for name, value in given.items() if value != before[name]}
        if not changed:
            self.unchanged += 1
            return
        found = value_problems(record, self.plan, changed, at=f"/rows/{number}")
        if not found:
            text = with_values(record, self.plan, changed)
            fault = read_one(replace(record, corrected=text), self.plan)
            if not isinstance(fault, Fault):
                texts[record.line] = text
                return
            found = [Problem(f"/rows/{number}", fault.message)]
        self.problems += found

    def _refuse(self, number: int, detail: str, at: str = "") -> None:
        self.problems.append(Problem(f"/rows/{number}{at}", detail))
