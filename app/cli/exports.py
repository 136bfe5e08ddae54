"""``haulier export``: rows of a table into a file here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from app.cli import output
from app.cli.artifacts import fetch
from app.cli.client import Client
from app.cli.failures import Exit, failed
from app.cli.imports import submit
from app.cli.target import json_option, with_client
from app.cli.watching import exit_of_job, tell_end, watch

_FORMATS: Final = ("csv", "ndjson", "json", "xlsx", "parquet")


@click.command()
@click.option("--table", required=True, help="Where the rows are.")
@click.option("--where", metavar="JSON|@FILE", help="Which rows: VQL's where, as JSON or in a file.")
@click.option("--columns", metavar="A,B", help="Which columns, in this order.  [default: all of the table]")
@click.option("--order-by", "order", metavar="COL[:desc]", multiple=True, help="May be repeated.")
@click.option("--limit", type=click.IntRange(1), help="Rows at most.")
@click.option("--format", "file_format", type=click.Choice(_FORMATS), default="csv", show_default=True)
@click.option("--gzip", is_flag=True, help="Write a gzip file.")
@click.option("--encrypted", is_flag=True, help="Have the server keep its copy encrypted.")
@click.option("-o", "--output", "target", required=True, type=click.Path(dir_okay=False, path_type=Path))
@json_option
@with_client
@click.pass_context
def export(
    context: click.Context,
    client: Client,
    /,
    *,
    table: str,
    file_format: str,
    gzip: bool,
    encrypted: bool,
    target: Path,
    as_json: bool,
    **query: Any,
) -> None:
    """Export rows of a table, download the file and check it."""
    if not target.parent.is_dir():
        raise failed(f"there is no folder {target.parent}", Exit.USAGE, code="usage.no_such_folder")
    config: dict[str, Any] = {
        "table": table,
        "vql": vql_of(client, table, **query),
        "compression": "gzip" if gzip else "none",
    }
    job_type = "export_csv_file"
    if encrypted or file_format != "csv":
        job_type = "export"
        config |= {"format": file_format, "encrypted": encrypted}
    job = watch(client, submit(client, config, job_type)["id"], title="export", quiet=as_json)
    file = fetch(client, job["id"], target, quiet=as_json) if job["state"] == "completed" else None
    if as_json:
        output.as_json({**job, "file": file})
    elif file is not None:
        click.echo(f"{output.number(file['rows'])} rows, {output.size(file['size_bytes'])} in {target}")
        click.echo(f"sha256 {file['sha256']}, as the job wrote it")
    else:
        tell_end(job)
    context.exit(exit_of_job(job))


def vql_of(
    client: Client, table: str, *, where: str | None, columns: str | None, order: tuple[str, ...], limit: int | None
) -> dict[str, Any]:
    """The query that a command's options ask for."""
    if columns is None:
        declared = client.get(f"/v1/tables/{quote(table, safe='')}")["columns"]
        chosen = [column["name"] for column in declared]
    else:
        chosen = [name.strip() for name in columns.split(",") if name.strip()]
    vql: dict[str, Any] = {"select_columns": chosen}
    if where is not None:
        vql["where"] = _where(where)
    if order:
        vql["order_by"] = [_order(one) for one in order]
    if limit is not None:
        vql["limit"] = limit
    return vql


def _where(text: str) -> dict[str, Any]:
    source = text
    if text.startswith("@"):
        try:
            source = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(f"{text[1:]} cannot be read: {error}", param_hint="--where") from None
    try:
        where = json.loads(source)
    except ValueError as error:
        raise click.BadParameter(
            f'expected JSON such as \'{{"keyword_match": {{"must": {{"country": "DE"}}}}}}\', got {error}',
            param_hint="--where",
        ) from None
    if not isinstance(where, dict):
        raise click.BadParameter("expected a JSON object", param_hint="--where")
    return where


def _order(text: str) -> dict[str, str]:
    column, _, direction = text.partition(":")
    if direction not in ("", "asc", "desc") or not column:
        raise click.BadParameter(f"expected COLUMN, COLUMN:asc or COLUMN:desc, got {text!r}", param_hint="--order-by")
    return {"order_by": column, "order_direction": direction or "asc"}
