"""How commands fail: exit codes that say which kind, and messages that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import IO, Any, ParamSpec, TypeVar

import click
from sqlalchemy.exc import DBAPIError, OperationalError

from app.domain.errors import HaulierError

P = ParamSpec("P")
R = TypeVar("R")


class Exit(IntEnum):
    """Exit codes of ``haulier``."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    CANCELLED = 4
    NOT_FOUND = 5
    AUTH = 6
    SERVER = 7


class CommandFailed(click.ClickException):
    """Ends a command with a message and an exit code; with ``--json`` the message is a document on standard output.

    Args:
        problem: ``code``, ``detail``, ``hint`` and ``errors`` as the API's problem documents have them.
    """

    def __init__(self, problem: dict[str, Any], exit_code: Exit) -> None:
        super().__init__(said(problem))
        self.problem = problem
        self.exit_code = exit_code  # type: ignore[misc]  # click: for a class, but read from the instance
        context = click.get_current_context(silent=True)
        self._as_json = bool(context and context.params.get("as_json"))

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it."""
        if self._as_json:
            click.echo(json.dumps({"error": self.problem}, indent=2))
        else:
            click.echo(f"Error: {self.message}", file=file, err=file is None)


def failed(
    detail: str, exit_code: Exit = Exit.FAILED, *, code: str = "command.failed", hint: str | None = None
) -> CommandFailed:
    """A failure that no answer of the API tells."""
    return CommandFailed({"code": code, "detail": detail, **({"hint": hint} if hint else {})}, exit_code)


def said(problem: dict[str, Any]) -> str:
    """A problem for a person: ``code: detail``, its faults with pointers, its hint."""
    lines = [f"{problem.get('code', 'error')}: {problem.get('detail', '')}"]
    lines += [f"  {fault.get('pointer') or '(body)'}: {fault.get('detail')}" for fault in problem.get("errors") or ()]
    if problem.get("hint"):
        lines.append(f"  hint: {problem['hint']}")
    if problem.get("status", 0) >= 500 and problem.get("trace_id"):
        lines.append(f"  trace: {problem['trace_id']} (in the server's log)")
    return "\n".join(lines)


def on_the_stores(command: Callable[P, R]) -> Callable[P, R]:
    """Decorates a command that works on the database itself, so that what goes wrong there is told in a sentence."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except HaulierError as error:
            raise told(error) from error
        except OperationalError as error:
            raise failed(
                f"the database does not answer: {str(error.orig).strip()}",
                Exit.SERVER,
                code="service.database_unavailable",
                hint="Start it ('haulier up'), or set HAULIER_DATABASE_URL or --data to one that runs.",
            ) from error
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) != "42P01":
                raise
            raise failed(
                "the database has no tables of Haulier",
                Exit.SERVER,
                code="service.database_empty",
                hint="Make them with 'haulier db upgrade'.",
            ) from error

    return run


def told(error: HaulierError) -> CommandFailed:
    """The failure that an error of the application ends a command with."""
    problem: dict[str, Any] = {"code": error.code, "detail": error.detail}
    if error.hint:
        problem["hint"] = error.hint
    if error.problems:
        problem["errors"] = [{"pointer": fault.pointer, "detail": fault.detail} for fault in error.problems]
    return CommandFailed(problem, exit_of(error.status))


def exit_of(status: int) -> Exit:
    """The exit code for an HTTP status of 400 or more."""
    if status in (401, 403):
        return Exit.AUTH
    if status == 404:
        return Exit.NOT_FOUND
    if status in (400, 413, 422):
        return Exit.USAGE
    return Exit.SERVER if status >= 500 else Exit.FAILED
