"""``haulier validate``: what an import of a file would do, without a server and without a trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from marshmallow import EXCLUDE, ValidationError

from app.api.table_schemas import TableSchema
from app.cli import output
from app.cli.failures import Exit, failed, told
from app.cli.imports import pair
from app.cli.target import client_of, data_option, json_option
from app.dataplane.arranging import problems_of
from app.dataplane.dry_run import DryRun
from app.dataplane.origins import PathOrigin
from app.domain.errors import HaulierError, InvalidRequestError
from app.domain.job_types import discover
from app.domain.tables import BUILT_IN, Table, check_table
from config.process import settings_with
from config.settings import Settings


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--table", help="Where the rows would go; one of your own is asked of the server.")
@click.option(
    "--schema",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The table's declaration as JSON, instead; nothing is asked of a server.",
)
@click.option("--map", "mapping", metavar="HEADER=COLUMN", multiple=True, help="A header that is called otherwise.")
@click.option("--auto-map", is_flag=True, help="Headers find the columns that they are most like.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="More of the config of an import, as JSON: transforms, rules, encoding and the like.",
)
@click.option("--rows", type=click.IntRange(1), help="Read no more records than about this many.  [default: all]")
@data_option
@json_option
@click.pass_context
def validate(
    context: click.Context,
    /,
    *,
    file: Path,
    table: str | None,
    schema: Path | None,
    mapping: tuple[str, ...],
    auto_map: bool,
    config_file: Path | None,
    rows: int | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Check FILE as an import would, and report; nothing is sent and nothing is written."""
    if table and schema:
        raise click.UsageError("expected --table or --schema, got both")
    declared = _declared(schema) if schema else _table(table, data_dir) if table else None
    config = _object(config_file) if config_file else {}
    config |= {"mapping": dict(map(pair, mapping))} if mapping else {}
    config |= {"auto_map": config.get("auto_map") or {}} if auto_map else {}
    try:
        report = _report(file, declared, config, settings_with({}), rows)
    except HaulierError as error:
        raise told(error) from error
    if as_json:
        output.as_json(report)
    else:
        _tell(report)
    context.exit(Exit.OK if report["passed"] else Exit.FAILED)


def _report(
    file: Path, table: Table | None, config: dict[str, Any], settings: Settings, rows: int | None
) -> dict[str, Any]:
    """As a job with ``validate_only`` makes it, of the whole file."""
    registry = discover(settings.job_types_package)
    named = {} if table is None else {"table": table.name}
    parsed = registry.parse(registry.get("import"), {**config, **named, "source": {"text": ""}})
    problems = problems_of(parsed.shaping, table, companions=parsed.companions) if table else []
    if problems:
        raise InvalidRequestError("the config does not fit the table", problems=tuple(problems))
    whole = file.resolve()
    origin = PathOrigin(whole.parent, (whole.name,))
    return DryRun(origin, table, parsed.options(), settings, most_rows=rows, scans=False).report()


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise failed(f"{file} cannot be read as JSON: {error}", Exit.USAGE, code="usage.not_json") from None
    if not isinstance(found, dict):
        raise failed(f"{file}: expected a JSON object", Exit.USAGE, code="usage.not_json")
    return found


def _table(name: str, data_dir: Path | None) -> Table:
    return BUILT_IN.get(name) or _loaded(client_of(data_dir).get(f"/v1/tables/{name}"), f"table {name!r}")


def _declared(file: Path) -> Table:
    return _loaded({"name": "table", **_object(file)}, str(file))


def _loaded(document: dict[str, Any], where: str) -> Table:
    """A declaration from JSON, checked."""
    try:
        table: Table = TableSchema(unknown=EXCLUDE).load(document)
        check_table(table)
    except ValidationError as error:
        raise failed(f"{where} declares no table: {error.messages}", Exit.USAGE, code="table.invalid") from None
    except HaulierError as error:
        raise told(error) from error
    return table


def _tell(report: dict[str, Any]) -> None:
    shown = [f"{name} {report[name]}" for name in ("format", "compression", "encoding", "delimiter") if name in report]
    click.echo(", ".join(shown))
    columns = {one["header"]: one for one in report["mapping"]}
    lines = [
        (
            one["name"],
            one["type"],
            f"{one['confidence']:.0%}",
            _goes(columns.get(one["name"].strip())),
            ", ".join(one["examples"])[:40],
        )
        for one in report["schema"]
    ]
    output.columns(("field", "type", "fits", "goes to", "such as"), lines)
    for problem in report["problems"]:
        click.echo(f"\n{problem['code']}: {problem['message']}" + (f"\n  {problem['hint']}" if problem["hint"] else ""))
    for group in report["rejects"]:
        field = f" in {group['field']}" if group["field"] else ""
        click.echo(f"\n{output.number(group['count'])} × {group['code']}{field}")
        for sample in group["samples"]:
            click.echo(f"  line {sample['line']}: {sample['message']}")
    records = report["records"]
    click.echo(
        f"\n{output.number(records['read'])} records read{'' if records['complete'] else ' (not all)'}, "
        f"{output.number(records['rejected'])} would be refused: {'passed' if report['passed'] else 'NOT PASSED'}"
    )


def _goes(proposal: dict[str, Any] | None) -> str:
    """The column of a field; in brackets one that it is only most like."""
    if proposal is None:
        return ""
    if proposal["column"] is not None:
        return f"{proposal['column']} ({proposal['confidence']:.0%})"
    return f"[{proposal['nearest']} {proposal['confidence']:.0%}]" if proposal["nearest"] else "nothing"
