"""``haulier limits``: how many jobs may be at work, and how many may begin in a time."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import click

from app.cli import output
from app.cli.client import Client
from app.cli.target import json_option, with_client

_KIND: Final = click.argument("kind", type=click.Choice(["tenant", "type", "key"]))


@click.group()
def limits() -> None:
    """Limits of tenants, job types and keys."""


@limits.command("list")
@json_option
@with_client
def list_(client: Client, as_json: bool) -> None:
    """List the limits that hold for the tenant's jobs."""
    found = client.get("/v1/limits")["items"]
    if as_json:
        output.as_json(found)
        return
    output.columns(
        ("kind", "name", "at once", "rate", "set by", "at"),
        (
            (
                one["kind"],
                one["name"],
                one["max_concurrency"],
                _rate(one),
                one["updated_by"],
                one["updated_at"][:19],
            )
            for one in found
        ),
    )


def _rate(limit: dict[str, Any]) -> str:
    return "" if limit["rate"] is None else f"{limit['rate']} in {limit['period_s']:g} s"


@limits.command("set")
@_KIND
@click.argument("name")
@click.option("--max-concurrency", type=click.IntRange(0), help="Jobs queued and running together.")
@click.option("--rate", type=click.IntRange(1), help="Jobs that begin within any --period-s seconds.")
@click.option("--period-s", type=float, help="The time that --rate is for.")
@json_option
@with_client
def set_(
    client: Client,
    /,
    *,
    kind: str,
    name: str,
    max_concurrency: int | None,
    rate: int | None,
    period_s: float | None,
    as_json: bool,
) -> None:
    """Set the limit of a tenant, a type or a key (or class of keys); it replaces the one before."""
    body = {"max_concurrency": max_concurrency, "rate": rate, "period_s": period_s}
    limit = client.put(_path(kind, name), body)
    if as_json:
        output.as_json(limit)
        return
    at_once = None if limit["max_concurrency"] is None else f"{limit['max_concurrency']} at once"
    click.echo(f"Limit of {kind} {name}: {', '.join(filter(None, (at_once, _rate(limit))))}.")


@limits.command()
@_KIND
@click.argument("name")
@json_option
@with_client
def delete(client: Client, kind: str, name: str, as_json: bool) -> None:
    """Take a limit away."""
    client.delete(_path(kind, name))
    if as_json:
        output.as_json({"deleted": {"kind": kind, "name": name}})
    else:
        click.echo(f"Limit of {kind} {name} is gone.")


def _path(kind: str, name: str) -> str:
    return f"/v1/limits/{kind}/{quote(name, safe='')}"
