"""``haulier keys``: API keys, made and revoked on the database itself, for no key is needed to make the first one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from app.cli import output
from app.cli.failures import on_the_stores
from app.cli.target import data_option, json_option, settings_of
from app.domain.access import DEFAULT_TENANT, ApiKey, Role
from app.domain.clock import SystemClock
from app.persistence.sessions import make_sessions, open_engine
from app.services.keys import Keys

_tenant = click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose keys.")


@click.group()
def keys() -> None:
    """API keys of tenants."""


@contextmanager
def _keys(data_dir: Path | None) -> Iterator[Keys]:
    url = settings_of(data_dir).database_url.get_secret_value()
    engine = open_engine(url, application_name="haulier keys", pool_size=1)
    try:
        yield Keys(make_sessions(engine), SystemClock())
    finally:
        engine.dispose()


@keys.command()
@_tenant
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What it may do.")
@click.option("--label", default="", help="What it is for.")
@click.option("--expires", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="When it ends, UTC.")
@data_option
@json_option
@on_the_stores
def create(
    *, tenant: str, role: str, label: str, expires: datetime | None, data_dir: Path | None, as_json: bool
) -> None:
    """Make a key; a tenant that is new becomes known. The key is shown this once."""
    expires_at = expires.replace(tzinfo=UTC) if expires else None
    with _keys(data_dir) as service:
        key, record = service.create(tenant, Role(role), label=label, created_by="haulier keys", expires_at=expires_at)
    if as_json:
        output.as_json({**_body(record), "key": key})
        return
    click.echo(key)
    click.echo(f"This is the {role} key {record.id} of tenant {tenant}; it is not shown again.", err=True)


@keys.command("list")
@_tenant
@data_option
@json_option
@on_the_stores
def list_(tenant: str, data_dir: Path | None, as_json: bool) -> None:
    """List a tenant's keys, revoked ones too."""
    with _keys(data_dir) as service:
        found = service.list(tenant)
    if as_json:
        output.as_json([_body(record) for record in found])
        return
    output.columns(
        ("id", "role", "state", "created", "label"),
        ((one.id, one.role.value, _state(one), f"{one.created_at:%Y-%m-%d %H:%M}", one.label) for one in found),
    )


@keys.command()
@click.argument("key_id")
@_tenant
@data_option
@json_option
@on_the_stores
def revoke(key_id: str, tenant: str, data_dir: Path | None, as_json: bool) -> None:
    """End the key KEY_ID (as 'keys list' shows it) now."""
    with _keys(data_dir) as service:
        record = service.revoke(tenant, key_id)
    if as_json:
        output.as_json(_body(record))
    else:
        click.echo(f"Key {key_id} is revoked; servers forget it within seconds.")


def _body(record: ApiKey) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(record).items()}


def _state(record: ApiKey) -> str:
    if record.revoked_at is not None:
        return "revoked"
    if record.expires_at is not None and record.expires_at <= SystemClock().now():
        return "expired"
    return "live"
