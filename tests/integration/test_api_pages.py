"""The pages of the documentation name what there is."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from app.cli.main import COMMANDS, main
from tests.integration.conftest import Client

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_the_api_names_every_path(nobody: Client) -> None:
    page = (DOCS / "api.md").read_text()
    paths = list(nobody.get("/openapi.json").get_json()["paths"])

    missing = [path for path in paths if path not in page and f"`:{path.rpartition(':')[2]}`" not in page]

    assert len(paths) > 20
    assert missing == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_page_of_the_command_line_names_every_command(name: str) -> None:
    page = (DOCS / "cli.md").read_text()
    context = click.Context(main)
    command = main.get_command(context, name)

    assert f"`haulier {name}" in page
    if isinstance(command, click.Group):
        missing = [inner for inner in command.list_commands(context) if inner not in page]
        assert missing == []
