"""Plug-ins: what other installed packages add by entry points."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from app.domain.errors import PermanentError

T = TypeVar("T")


class PluginError(Exception):
    """A plug-in cannot be used; the text names its entry point, its package and the cause."""


def load(group: str, kind: type[T]) -> dict[str, T]:
    """What the entry points of ``group`` lead to, by what names the entry point to a person.

    Raises:
        PluginError: One of them cannot be loaded, or leads to no ``kind``.
    """
    return {said(point): load_one(point, kind) for point in entry_points(group=group)}


def load_one(point: EntryPoint, kind: type[T]) -> T:
    """What one entry point leads to; PluginError as ``load``."""
    try:
        found = point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(f"{said(point)} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, kind):
        raise PluginError(f"{said(point)} leads to no {kind.__name__}, got {type(found).__name__}")
    return found


def said(point: EntryPoint) -> str:
    """An entry point as a person knows it."""
    package = f" of package {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"entry point {point.name} = {point.value} in group {point.group}{package}"


def names(group: str) -> list[str]:
    """What the installed packages have in a group."""
    return sorted({point.name for point in entry_points(group=group)})


def find(group: str, name: str, kind: type[T], *, besides: Iterable[str] = ()) -> T:
    """The plug-in of that name; no other of the group is loaded.

    Args:
        besides: What the caller has without a package, for the message.
    Raises:
        PermanentError: ``plugin.not_found``, naming those there are; ``plugin.not_loaded``.
    """
    found = list(entry_points(group=group, name=name))
    if not found:
        known = ", ".join([*besides, *names(group)]) or "none"
        raise PermanentError(
            f"there is no {kind.__name__.lower()} {name!r}; known are {known}",
            code="plugin.not_found",
        )
    try:
        return load_one(found[0], kind)
    except PluginError as error:
        raise PermanentError(str(error), code="plugin.not_loaded") from error
