"""``haulier config``: which settings are in force, and where each came from."""

from __future__ import annotations

import click

from app.cli import output
from app.cli.failures import Exit, failed
from app.cli.target import json_option
from config.process import explained
from config.settings import SettingsError, variable_of


@click.group()
def config() -> None:
    """Settings of this installation."""


@config.command()
@click.option("--changed", is_flag=True, help="Only those that something sets.")
@json_option
def show(changed: bool, as_json: bool) -> None:
    """Show every setting: its variable, its value (secrets masked) and where that came from."""
    try:
        found = [one for one in explained() if not (changed and one.source == "default")]
    except SettingsError as error:
        raise failed(str(error), Exit.USAGE, code="settings.invalid") from None
    if as_json:
        output.as_json([{**one.model_dump(), "variable": variable_of(one.name)} for one in found])
        return
    output.columns(("variable", "value", "source"), ((variable_of(one.name), one.value, one.source) for one in found))
