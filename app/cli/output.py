"""What commands print: tables of plain columns, figures for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click


def as_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def columns(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under their heads, each column as wide as its widest value; one row a line, whatever it holds."""
    table = [tuple(heads), *(tuple(_one_line(cell) for cell in row) for row in rows)]
    widths = [max(len(row[place]) for row in table) for place in range(len(heads))]
    for row in table:
        cells = [*(f"{cell:<{width}}" for cell, width in zip(row[:-1], widths, strict=False)), row[-1]]
        click.echo("  ".join(cells).rstrip())


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one a line; a value that is missing leaves its line out."""
    shown = [(name, _one_line(value)) for name, value in pairs if value is not None and value != ""]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name:<{width}}  {value}")


def number(value: float) -> str:
    """``1234567`` as ``1,234,567``."""
    return f"{value:,.0f}"


def size(bytes_: float) -> str:
    """Bytes with a unit a person reads."""
    for unit in ("B", "kB", "MB", "GB"):
        if bytes_ < 1_000:
            return f"{bytes_:.0f} {unit}" if unit == "B" else f"{bytes_:.1f} {unit}"
        bytes_ /= 1_000
    return f"{bytes_:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _one_line(value: Any) -> str:
    """A value without what would move the cursor: files hold whatever they hold."""
    text = (
        json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str("" if value is None else value)
    )
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
