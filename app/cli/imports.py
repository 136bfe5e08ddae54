"""``haulier import``: a CSV file from here into a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from app.cli import output
from app.cli.books import first_failed, show_books, show_failed
from app.cli.client import Client
from app.cli.failures import CommandFailed
from app.cli.target import json_option, with_client
from app.cli.transfer import upload
from app.cli.watching import exit_of_job, tell_end, watch


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--table", required=True, help="Where the rows go.")
@click.option("--key", "keys", metavar="COL", multiple=True, help="The table's key, as a check; may be repeated.")
@click.option("--map", "mapping", metavar="HEADER=COLUMN", multiple=True, help="A header that is called otherwise.")
@click.option("--mode", type=click.Choice(["upsert", "insert", "update"]), default="upsert", show_default=True)
@click.option("--encoding", type=click.Choice(["utf-8", "latin-1", "utf-16"]), default="utf-8", show_default=True)
@click.option("--delimiter", default=",", show_default=True, help="One character.")
@click.option("--ignore-unknown", is_flag=True, help="Leave out fields whose header is no column.")
@click.option("--batch-size", type=click.IntRange(1, 1_000_000), help="Rows per batch; see 'haulier batch-report'.")
@click.option("--parallel-batches", type=click.IntRange(1, 8), help="Connections that write side by side.")
@click.option("--batch-timeout-s", type=float, help="Take a batch back that takes longer, and try it again.")
@click.option("--max-errors", type=click.IntRange(0), help="Pause the job when more rows than this are refused.")
@click.option(
    "--show-failed",
    "most_failed",
    type=click.IntRange(0, 1_000),
    default=5,
    show_default=True,
    help="Refused rows to show.",
)
@click.option("--detach", is_flag=True, help="Submit the job and leave it alone.")
@json_option
@with_client
@click.pass_context
def import_(
    context: click.Context,
    client: Client,
    /,
    *,
    file: Path,
    most_failed: int,
    detach: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Import the CSV FILE: send it, load it, and tell what became of every row."""
    config = _config(**options)
    job = submit(client, {**config, "s3_key": upload(client, file, quiet=as_json)["s3_key"]})
    if not detach:
        job = watch(client, job["id"], title="import", quiet=as_json)
        if not as_json:
            tell(client, job, most_failed=most_failed)
    elif not as_json:
        click.echo(f"Job {job['id']} is {job['state']}. Watch it: haulier jobs watch {job['id']}")
    if as_json:
        output.as_json(document(client, job, most_failed=most_failed))
    context.exit(0 if detach else exit_of_job(job))


def _config(
    *,
    table: str,
    keys: tuple[str, ...],
    mapping: tuple[str, ...],
    mode: str,
    encoding: str,
    delimiter: str,
    ignore_unknown: bool,
    **bounds: float | None,
) -> dict[str, Any]:
    given = {
        "key": list(keys) or None,
        "mapping": dict(pair(one) for one in mapping) or None,
        **bounds,
    }
    return {
        "table": table,
        "mode": mode,
        "encoding": encoding,
        "delimiter": delimiter,
        "ignore_unknown": ignore_unknown,
        **{name: value for name, value in given.items() if value is not None},
    }


def pair(text: str) -> tuple[str, str]:
    """A header and its column, from ``HEADER=COLUMN``."""
    header, equals, column = text.rpartition("=")
    if not equals or not header or not column:
        raise click.BadParameter(f"expected HEADER=COLUMN, got {text!r}", param_hint="--map")
    return header, column


def submit(client: Client, config: dict[str, Any], job_type: str = "insert_csv_file") -> dict[str, Any]:
    """Make a job; sent again after a break, it is still one."""
    job: dict[str, Any] = client.post("/v1/jobs", {"type": job_type, "config": config}, idempotency_key=str(uuid4()))
    return job


def tell(client: Client, job: dict[str, Any], *, most_failed: int) -> None:
    """Print the books of an import that has ended, its first refused rows, and why it ended otherwise."""
    found = document(client, job, most_failed=most_failed)
    if found["books"]:
        show_books(found["books"])
    if found["failed_rows"]:
        click.echo()
        show_failed(found["failed_rows"])
        click.echo(f"\nAll of them: haulier jobs failed-rows {job['id']} --csv failed.csv")
    tell_end(job)


def document(client: Client, job: dict[str, Any], *, most_failed: int) -> dict[str, Any]:
    """The job with its ``books`` (``None`` before it completed) and its first ``failed_rows``."""
    try:
        data = client.get(f"/v1/jobs/{job['id']}/result")["data"] or {}
    except CommandFailed as error:
        if error.problem.get("status") != 409:
            raise
        data = {}
    failed_rows = first_failed(client, job["id"], most_failed)
    return {**job, "books": data.get("books"), "failed_rows": failed_rows}
