"""Every log line has a name, and every name is listed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from app.telemetry.events import EVENTS

ROOT = Path(__file__).parents[2]
_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}


def _constants(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _constants(node.body)
        yield from _constants(node.orelse)


def _logged() -> Iterator[tuple[str, str]]:
    for folder in ("app", "tasks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in _METHODS
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id in {"log", "logger"}
                ):
                    for name in _constants(node.args[0]):
                        yield name, str(path.relative_to(ROOT))


def test_every_line_that_is_logged_has_a_listed_name() -> None:
    assert not [(name, path) for name, path in _logged() if name not in EVENTS]


def test_every_listed_name_is_logged_somewhere() -> None:
    assert not EVENTS - {name for name, _ in _logged()}
