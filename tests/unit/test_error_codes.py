"""Every error code of the source is told about, and no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.error_codes import REMEDIES
from app.domain.retry import CRASHED
from app.security.outgoing.targets import FORBIDDEN
from app.services.row_texts import TOO_LARGE
from app.services.runs import WORKER_LOST

_ROOT = Path(__file__).parents[2]
_MADE_UP = {CRASHED, FORBIDDEN, TOO_LARGE, WORKER_LOST, "value.bigint", "value.integer"}
"""Codes that stand in the source by a name, or are put together."""


def _literal(node: ast.AST | None) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def _codes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="Fault" | "Refused" | "RefusedError"), args=[first, *_]):
                yield from _literal(first)
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="faults"), attr="add"), args=[first, *_]):
                yield from (f"vql.{code}" for code in _literal(first))
            case ast.keyword(arg="code", value=value):
                yield from _literal(value)
            case ast.ClassDef(body=body):
                for line in body:
                    if isinstance(line, ast.Assign | ast.AnnAssign):
                        names = line.targets if isinstance(line, ast.Assign) else [line.target]
                        if any(isinstance(name, ast.Name) and name.id == "code" for name in names):
                            yield from _literal(line.value)
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if "code" in _literal(key):
                        yield from _literal(value)


@pytest.mark.feature("S0-17")
def test_every_code_has_a_remedy_and_every_remedy_a_code() -> None:
    sources = [path for folder in ("app", "tasks") for path in (_ROOT / folder).rglob("*.py")]
    found = {code for path in sources for code in _codes(ast.parse(path.read_text())) if "." in code}

    assert sorted((found | _MADE_UP) - REMEDIES.keys()) == []
    assert sorted(REMEDIES.keys() - found - _MADE_UP) == []


def test_codes_stand_in_order() -> None:
    assert list(REMEDIES) == sorted(REMEDIES)
