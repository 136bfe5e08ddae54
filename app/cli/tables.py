"""``haulier tables``: list, show, create and drop tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from app.cli import output
from app.cli.client import Client
from app.cli.failures import Exit, failed
from app.cli.target import json_option, with_client


@click.group()
def tables() -> None:
    """Tables that imports fill and exports read."""


@tables.command("list")
@json_option
@with_client
def list_(client: Client, as_json: bool) -> None:
    """List the tables."""
    found = client.get("/v1/tables")["items"]
    if as_json:
        output.as_json(found)
        return
    output.columns(
        ("name", "columns", "key", "version"),
        ((table["name"], len(table["columns"]), ",".join(table["key"]), table["version"]) for table in found),
    )


@tables.command()
@click.argument("name")
@json_option
@with_client
def show(client: Client, name: str, as_json: bool) -> None:
    """Show a table: its columns, key, indexes, size and number of rows."""
    table = client.get(f"/v1/tables/{quote(name, safe='')}")
    table["rows"] = client.post(f"/v1/tables/{quote(name, safe='')}/records:count", {})["count"]
    if as_json:
        output.as_json(table)
        return
    output.facts(
        [
            ("name", table["name"]),
            ("key", ", ".join(table["key"])),
            ("rows", output.number(table["rows"])),
            ("on disk", output.size(table["bytes_on_disk"])),
            ("indexes", ", ".join(table["valid_indexes"])),
            ("to build", ", ".join(table["missing_indexes"]) or "none"),
            ("version", table["version"]),
            ("built in", "yes" if table["built_in"] else "no"),
        ]
    )
    click.echo()
    output.columns(("column", "type", "rules"), ((one["name"], one["type"], _rules(one)) for one in table["columns"]))


def _rules(column: dict[str, Any]) -> str:
    rules = ["required"] if column["required"] else []
    if column["max_length"]:
        rules.append(f"at most {column['max_length']} characters")
    if column["format"]:
        rules.append(column["format"])
    return ", ".join(rules)


@tables.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True, allow_dash=True, path_type=Path))
@json_option
@with_client
def create(client: Client, file: Path, as_json: bool) -> None:
    r"""Declare the table in FILE, a JSON document (- reads standard input); a higher version changes a table.

    \b
    {"name": "orders", "key": ["id"],
     "columns": [{"name": "id", "type": "bigint"}, {"name": "email", "type": "text", "format": "email"}],
     "indexes": [{"columns": ["email"]}]}
    """
    declared = client.post("/v1/tables", declaration_in(file))
    if as_json:
        output.as_json(declared)
    else:
        click.echo(f"Table {declared['name']} is there, version {declared['version']}.")


def declaration_in(file: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    with click.open_file(str(file), encoding="utf-8") as text:
        try:
            declaration = json.load(text)
        except ValueError as error:
            raise failed(f"{file} is not JSON: {error}", Exit.USAGE, code="usage.not_json") from None
    if not isinstance(declaration, dict):
        raise failed(f"{file} holds no JSON object", Exit.USAGE, code="usage.not_json")
    return declaration


@tables.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@with_client
def drop(client: Client, name: str, yes: bool, as_json: bool) -> None:
    """Drop a table and all its rows."""
    if not yes:
        click.confirm(f"Drop table {name} and all its rows?", abort=True, err=True)
    client.delete(f"/v1/tables/{quote(name, safe='')}")
    if as_json:
        output.as_json({"dropped": name})
    else:
        click.echo(f"Table {name} is gone.")
