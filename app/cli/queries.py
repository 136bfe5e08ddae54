"""``haulier query``: rows of a table, here and now; or how they would be found."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click
import requests

from app.cli import output
from app.cli.client import Client
from app.cli.exports import vql_of
from app.cli.failures import CommandFailed, Exit, failed
from app.cli.target import json_option, with_client

_BLOCK_BYTES: Final = 65_536
_LAST_BYTES: Final = 1_000
_BROKEN_OFF: Final = re.compile(rb'\n"?!error [^\n]*\n\Z')


@click.command()
@click.option("--table", required=True, help="Where the rows are.")
@click.option("--where", metavar="JSON|@FILE", help="Which rows: VQL's where, as JSON or in a file.")
@click.option("--columns", metavar="A,B", help="Which columns, in this order.  [default: all of the table]")
@click.option("--order-by", "order", metavar="COL[:desc]", multiple=True, help="May be repeated.")
@click.option("--limit", type=click.IntRange(1), help="Rows at most.")
@click.option("--format", "format_", type=click.Choice(["ndjson", "csv", "json"]), default="ndjson", show_default=True)
@click.option("--mode", type=click.Choice(["auto", "stream", "job"]), default="auto", show_default=True)
@click.option("--explain", is_flag=True, help="Run nothing: show estimates, indexes and the plan.")
@click.option("-o", "--output", "target", type=click.Path(dir_okay=False, path_type=Path), help="[default: stdout]")
@json_option
@with_client
def query(
    client: Client,
    /,
    *,
    table: str,
    format_: str,
    mode: str,
    explain: bool,
    target: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Read rows of a table at once; a query that is too large for that becomes a job."""
    vql = vql_of(client, table, **asked)
    if explain:
        path = f"/v1/tables/{quote(table, safe='')}/records:explain"
        _show_plan(client.post(path, {"vql": vql, "format": format_}), as_json=as_json)
        return
    body = {"table": table, "vql": vql, "format": format_, "mode": mode}
    with client.answer("/v1/queries", body) as answer:
        if answer.status_code == requests.codes.accepted:
            _tell_job(answer.json(), as_json=as_json)
        else:
            _write(answer, target)


def _write(answer: requests.Response, target: Path | None) -> None:
    out = sys.stdout.buffer if target is None else target.open("wb")
    try:
        last = b""
        for block in answer.iter_content(_BLOCK_BYTES):
            out.write(block)
            last = last[-_LAST_BYTES:] + block
        out.flush()
    except requests.RequestException as error:
        raise _not_whole() from error
    finally:
        if target is not None:
            out.close()

    if _BROKEN_OFF.search(last[-_LAST_BYTES:]):
        raise _not_whole()


def _not_whole() -> CommandFailed:
    return failed(
        "the answer broke off, so it is not whole",
        Exit.SERVER,
        code="vql.timeout",
        hint="Ask with --mode job, or narrow the query.",
    )


def _tell_job(deferred: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.as_json(deferred)
        return
    job_id = deferred["job"]["id"]
    click.echo(f"job {job_id} will answer ({deferred['reason']}): haulier jobs watch {job_id}", err=True)


def _show_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.as_json(plan)
        return
    estimate = plan["estimate"]
    output.facts(
        [
            ("rows", f"about {output.number(estimate['rows'])}"),
            ("bytes", f"about {output.size(estimate['bytes'])}"),
            ("cost", f"{output.number(estimate['cost'])}, about {output.duration(plan['estimated_ms'] / 1000)}"),
            ("indexes", ", ".join(plan["indexes"])),
            ("read whole", ", ".join(plan["whole_tables"])),
            ("becomes a job", plan["becomes_job"] or "no"),
        ]
    )
    click.echo()
    output.columns(
        ("step", "table", "index", "rows", "cost"),
        (
            ("  " * step["depth"] + step["does"], step["table"] or "", step["index"] or "", step["rows"], step["cost"])
            for step in plan["plan"]
        ),
    )
