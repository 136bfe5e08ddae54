"""The one place that reads the process's environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from config.settings import Settings, Sourced, explain, from_env


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return from_env(os.environ)


def settings_with(flags: Mapping[str, Any]) -> Settings:
    """The settings with a command's flags on top."""
    return from_env(os.environ, flags=flags)


def explained() -> list[Sourced]:
    """Every setting with its value and source."""
    return explain(os.environ)


def client_variables() -> tuple[str | None, str | None]:
    """``HAULIER_URL`` and ``HAULIER_API_KEY``, for commands that are HTTP clients."""
    return os.environ.get("HAULIER_URL"), os.environ.get("HAULIER_API_KEY")


def environment() -> dict[str, str]:
    """A copy of the environment, for child processes."""
    return dict(os.environ)
