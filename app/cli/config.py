"""``haulier config``: which settings are in force, and where each came from."""

from __future__ import annotations

import click

from app.cli import output
from app.cli.target import json_option
from config.process import explained
from config.settings import variable_of


@click.group()
def config() -> None:
    """Settings of this installation."""


@config.command()
@click.option("--changed", is_flag=True, help="Only those that something sets.")
@json_option
def show(changed: bool, as_json: bool) -> None:
    """Show every setting: its variable, its value (secrets masked) and where that came from."""
    found = [one for one in explained() if not (changed and one.source == "default")]
    if as_json:
        output.as_json([{**one.model_dump(), "variable": variable_of(one.name)} for one in found])
        return
    output.columns(("variable", "value", "source"), ((variable_of(one.name), one.value, one.source) for one in found))
