"""The books of an import and its first failed rows, as a person reads them."""

from __future__ import annotations

from typing import Any, Final

import click

from app.cli.client import Client
from app.cli.output import columns, number

_FATES: Final = ("loaded", "updated", "unchanged", "superseded", "skipped", "failed")
_RAW_CHARACTERS: Final = 60


def show_books(books: dict[str, int]) -> None:
    """Print what became of every row, and whether the figures add up."""
    total = sum(books[fate] for fate in _FATES)
    parts = " + ".join(f"{number(books[fate])} {fate}" for fate in _FATES)
    click.echo(f"{number(books['read'])} read = {parts}")
    if total != books["read"]:
        click.echo(f"The books do not balance: {number(total)} rows are accounted for.", err=True)


def first_failed(client: Client, job_id: str, most: int) -> list[dict[str, Any]]:
    """The first failed rows of a job."""
    return list(client.pages(f"/v1/jobs/{job_id}/failed-records", most=most))


def show_failed(records: list[dict[str, Any]]) -> None:
    """Print failed rows: line, what is wrong, and the row's beginning."""
    columns(
        ("line", "code", "message", "row"),
        ((one["line"], one["code"], one["message"], _raw(one)) for one in records),
    )


def _raw(record: dict[str, Any]) -> str:
    raw = record["raw"]
    if raw is None:
        return "(not kept)"
    shown = raw[:_RAW_CHARACTERS] + ("…" if len(raw) > _RAW_CHARACTERS else "")
    return f"base64:{shown}" if record["raw_is_base64"] else shown
