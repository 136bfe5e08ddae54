"""Which Haulier a command works on: by URL and key, or the one that ``haulier up`` runs on a data directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

import click

from app.cli.client import Client
from app.cli.failures import Exit, failed
from app.domain.error_codes import REMEDIES
from config.process import client_variables, explained, settings_with
from config.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_DATA: Final = Path("var")
_STORES: Final = (
    "database_url",
    "redis_url",
    "s3_endpoint",
    "s3_access_key_id",
    "s3_secret_access_key",
    "s3_bucket",
)
"""What ``up.json`` says about the stores; named as the settings are."""

data_option = click.option(
    "--data",
    "data_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Work on what 'haulier up' runs on this directory.  [default: var, when the environment names nothing]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def state_of(data_dir: Path) -> dict[str, Any] | None:
    """What ``up.json`` of a data directory says; ``None`` when nothing runs there."""
    try:
        state: dict[str, Any] = json.loads((data_dir / "up.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise failed(f"{data_dir / 'up.json'} cannot be read: {error}", Exit.USAGE, code="up.unreadable") from None
    return state


def client_of(data_dir: Path | None) -> Client:
    """The API that a command talks to.

    ``--data`` wins over ``HAULIER_URL`` and ``HAULIER_API_KEY``, those over ``./var``.

    Raises:
        CommandFailed: Nothing says where the API is, or with which key; or what says it is no address, or no key.
    """
    url, key = client_variables()
    state = None
    if data_dir is not None:
        state = _running(data_dir)
        url, key = state["url"], state["key"]
    elif url is None and (state := state_of(DEFAULT_DATA)) is not None:
        url, key = state["url"], key or state["key"]
    if url is None:
        raise failed(
            "nothing says which Haulier to talk to",
            Exit.USAGE,
            code="target.unknown",
            hint="Start one with 'haulier up', or set HAULIER_URL and HAULIER_API_KEY, or give --data DIR.",
        )
    if key is None:
        raise failed(
            "there is no API key",
            Exit.AUTH,
            code="auth.no_key",
            hint="Set HAULIER_API_KEY; 'haulier keys create --tenant default --role member' makes one.",
        )
    _check(url, key)
    return Client(url, key)


def _check(url: str, key: str) -> None:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise failed(
            f"HAULIER_URL is an address like http://127.0.0.1:8600, got {url!r}",
            Exit.USAGE,
            code="target.invalid",
            hint=REMEDIES["target.invalid"],
        )
    if not (key.isascii() and key.isprintable()):
        raise failed(
            "an API key has printable characters of ASCII only, got others",
            Exit.AUTH,
            code="auth.unauthorized",
            hint="Set HAULIER_API_KEY to the key as it was printed when it was made.",
        )


def with_client(command: Callable[Concatenate[Client, P], R]) -> Callable[P, R]:
    """Decorates a command that is a client of the API: adds ``--data`` and passes the client first."""

    @data_option
    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        data_dir = kwargs.pop("data_dir")
        return command(client_of(data_dir if isinstance(data_dir, Path) else None), *args, **kwargs)

    return run


def settings_of(data_dir: Path | None) -> Settings:
    """The settings of a command that works on the stores: of ``--data``, else the environment, else ``./var``.

    Raises:
        CommandFailed: Nothing says where the database is.
    """
    if data_dir is not None:
        return settings_with(_stores(_running(data_dir)))
    if next(one for one in explained() if one.name == "database_url").source != "default":
        return settings_with({})
    state = state_of(DEFAULT_DATA)
    if state is None:
        raise failed(
            "nothing says which database to work on",
            Exit.USAGE,
            code="target.unknown",
            hint="Start one with 'haulier up', or set HAULIER_DATABASE_URL, or give --data DIR.",
        )
    return settings_with(_stores(state))


def stores_environment(data_dir: Path) -> dict[str, str]:
    """The variables that make a process use the stores of a data directory's stack."""
    return {f"HAULIER_{name.upper()}": value for name, value in _stores(_running(data_dir)).items()}


def signing_secret(data_dir: Path | None) -> str | None:
    """The installation's secret: of ``--data``, else the environment, else ``./var``; ``None`` when there is none.

    It is read from the data directory itself: nothing needs to run.
    """
    secret = settings_with({}).secret_key
    if data_dir is None and secret is not None:
        return secret.get_secret_value()
    return _kept_secret(data_dir, "secret_key")


def opening_keys(data_dir: Path | None) -> tuple[str, ...]:
    """The installation's master keys, found as ``signing_secret`` is; empty when there is none."""
    keys = settings_with({}).master_keys
    if data_dir is None and keys:
        return keys
    kept = _kept_secret(data_dir, "master_key")
    return () if kept is None else (kept,)


def _kept_secret(data_dir: Path | None, name: str) -> str | None:
    try:
        kept = json.loads(((data_dir or DEFAULT_DATA) / "secrets.json").read_text())
    except (OSError, ValueError):
        return None
    return kept.get(name) if isinstance(kept, dict) else None


def _running(data_dir: Path) -> dict[str, Any]:
    state = state_of(data_dir)
    if state is None:
        raise failed(
            f"nothing runs on {data_dir}",
            Exit.USAGE,
            code="up.not_running",
            hint=f"Start it with 'haulier up --data {data_dir}'.",
        )
    return state


def _stores(state: dict[str, Any]) -> dict[str, str]:
    return {name: state[name] for name in _STORES}
