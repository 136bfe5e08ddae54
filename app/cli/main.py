"""The ``haulier`` command: finds the command that was asked for and nothing else."""

from __future__ import annotations

import importlib
from typing import Any, Final, cast

import click

import haulier
from config.settings import SettingsError

COMMANDS: Final = {
    "up": "app.cli.up:up",
    "down": "app.cli.up:down",
    "web": "app.cli.web:web",
    "engine": "app.cli.engine:engine",
    "db": "app.cli.db:db",
    "keys": "app.cli.keys:keys",
    "tables": "app.cli.tables:tables",
    "import": "app.cli.imports:import_",
    "export": "app.cli.exports:export",
    "decrypt": "app.cli.decrypt:decrypt",
    "query": "app.cli.queries:query",
    "validate": "app.cli.validate:validate",
    "verify": "app.cli.verify:verify",
    "jobs": "app.cli.jobs:jobs",
    "batches": "app.cli.batches:batches",
    "batch-report": "app.cli.batches:batch_report",
    "schedules": "app.cli.schedules:schedules",
    "queues": "app.cli.queues:queues",
    "limits": "app.cli.limits:limits",
    "workers": "app.cli.queues:workers",
    "config": "app.cli.config:config",
    "demo": "app.cli.demo:demo",
}
"""Where each command lives; a command's module is imported when it is used, so that the others start fast."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every command's name."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command called ``cmd_name``."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), name))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; settings that cannot be used end it with a sentence, not a traceback."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            from app.cli.failures import Exit, failed

            raise failed(str(error), Exit.USAGE, code="settings.invalid") from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(haulier.__version__, prog_name="haulier")
def main() -> None:
    """Haulier: a job server for bulk data."""
