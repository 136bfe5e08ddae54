"""``haulier batches`` and ``haulier batch-report``: an import batch by batch, and the batch size that suits a table."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from app.cli import output
from app.cli.client import Client
from app.cli.target import json_option, with_client


@click.command()
@click.argument("job_id", type=click.UUID)
@click.option("--after", type=click.IntRange(-1), default=-1, help="Number of the last one seen.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True)
@json_option
@with_client
def batches(client: Client, job_id: Any, after: int, limit: int, as_json: bool) -> None:
    """Show the batches of an import, with their rows and seconds."""
    page = client.get(f"/v1/jobs/{job_id}/batches", after=after, limit=limit)
    if as_json:
        output.as_json(page)
        return
    if page["batch_size"] is None:
        click.echo(f"Job {job_id} has no batches.")
        return
    click.echo(
        f"{page['batches']} batches of {output.number(page['batch_size'])} rows, "
        f"{page['parallel_batches']} written at once"
    )
    output.columns(
        ("batch", "lines", "rows", "failed", "lanes", "seconds", "rows/s"),
        (
            (
                one["batch"],
                f"{one['first_line']}-{one['last_line']}",
                output.number(one["rows"]),
                output.number(one["failed"]),
                one["lanes"],
                f"{one['seconds']:.3f}",
                output.number(one["rows_per_s"] or 0),
            )
            for one in page["items"]
        ),
    )
    if page["next_after"] is not None:
        click.echo(f"\nMore: haulier batches {job_id} --after {page['next_after']}")


@click.command("batch-report")
@click.option("--table", required=True, help="Whose imports are compared.")
@click.option(
    "--days", type=click.IntRange(1, 365), default=30, show_default=True, help="Submitted since so many days."
)
@json_option
@with_client
def batch_report(client: Client, table: str, days: int, as_json: bool) -> None:
    """Compare the batch sizes of a table's imports by their rows/s, and suggest one."""
    report = client.get(f"/v1/tables/{quote(table, safe='')}/batch-report", days=days)
    if as_json:
        output.as_json(report)
        return
    output.columns(
        ("batch size", "imports", "rows", "failed", "seconds", "rows/s"),
        (
            (
                output.number(one["batch_size"]),
                output.number(one["jobs"]),
                output.number(one["rows"]),
                output.number(one["failed"]),
                f"{one['seconds']:.1f}",
                output.number(one["rows_per_s"]),
            )
            for one in report["items"]
        ),
    )
    suggested = report["suggested_batch_size"]
    click.echo(f"\nSuggested: {'none' if suggested is None else output.number(suggested)}; {report['reason']}")
