"""Watching a job to its end: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from app.cli.client import Client
from app.cli.failures import CommandFailed, Exit, said
from app.cli.output import duration, number

TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})
_WAIT_S: Final = 0.4
_LINE_EVERY_S: Final = 2.0
_GUESS_FROM_PERCENT: Final = 2.0
_BUSY_CODES: Final = frozenset({"service.too_many_waits"})


class Shown(Protocol):
    """Shows how far something is; ``percent`` is ``None`` while unknown."""

    def __call__(self, percent: float | None, text: str) -> None:
        """Show this now."""
        ...


@contextmanager
def showing(title: str, *, quiet: bool = False) -> Iterator[Shown]:
    """A bar on a terminal, else a line at the start, every two seconds at most, and at the end; on standard error.

    Args:
        quiet: Show nothing where there is no terminal.
    """
    if not sys.stderr.isatty():
        yield _Lines(title, quiet=quiet)
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=18),
        TextColumn("{task.percentage:>5.1f} %"),
        TextColumn("{task.fields[text]}"),
        console=Console(stderr=True),
        transient=False,
    )
    with bar:
        task = bar.add_task(f"{title:<9}", total=None, text="")

        def show(percent: float | None, text: str) -> None:
            if percent is None:
                bar.update(task, text=text)
            else:
                bar.update(task, total=100.0, completed=percent, text=text)

        yield show


class _Lines:
    """Progress as lines of text."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._title = title
        self._quiet = quiet
        self._shown_at = 0.0
        self._shown = ""

    def __call__(self, percent: float | None, text: str) -> None:
        """Print a line when enough time has passed or the end is reached."""
        is_end = percent == 100.0
        line = f"{self._title}: {'' if percent is None else f'{percent:.1f} %, '}{text}"
        if self._quiet or line == self._shown or not (is_end or time.monotonic() - self._shown_at >= _LINE_EVERY_S):
            return
        self._shown_at = time.monotonic()
        self._shown = line
        click.echo(line, err=True)


def watch(
    client: Client, job_id: str, *, title: str = "job", quiet: bool = False, outlives_us: bool = True
) -> dict[str, Any]:
    """Show a job until it has ended, or is paused; the job as it is then. Ctrl-C leaves the job alone.

    Args:
        title: Stands before the bar.
        quiet: Show nothing where there is no terminal.
        outlives_us: Whether the job goes on when the watching is broken off, which is then said.
    """
    try:
        with showing(title, quiet=quiet) as show:
            while True:
                job = _look(client, job_id)
                show(job["progress"]["percent"] if job["state"] != "failed" else None, progress_text(job))
                if job["state"] in TERMINAL or (job["paused"] and job["state"] == "open"):
                    return job
    except KeyboardInterrupt:
        if outlives_us:
            click.echo(f"\nThe job goes on. Watch it again: haulier jobs watch {job_id}", err=True)
        raise


def _look(client: Client, job_id: str) -> dict[str, Any]:
    """The job once it has ended or a moment has passed."""
    try:
        job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}", wait=_WAIT_S)
    except CommandFailed as error:
        if error.problem.get("code") not in _BUSY_CODES:
            raise
        time.sleep(_WAIT_S)
        job = client.get(f"/v1/jobs/{job_id}")
    return job


def progress_text(job: dict[str, Any]) -> str:
    """State, rows, rate and time left in one line."""
    progress = job["progress"]
    parts = [] if job["state"] == "running" and progress["rows_done"] else [job["state"]]
    if job["paused"]:
        parts.append("paused")
    if progress["rows_done"]:
        parts.append(f"{number(progress['rows_done'])} rows")
    if progress["rows_per_s"]:
        parts.append(f"{number(progress['rows_per_s'])} rows/s")
    # Below that the rate of the first batch is all there is, and the guess is hours off.
    if progress["eta"] and progress["percent"] >= _GUESS_FROM_PERCENT:
        left_s = (datetime.fromisoformat(progress["eta"]) - datetime.now(UTC)).total_seconds()
        parts.append(f"{duration(max(0.0, left_s))} left")
    elif job["duration_ms"] is not None and job["state"] in TERMINAL:
        parts.append(f"in {duration(job['duration_ms'] / 1000)}")
    return ", ".join(parts)


def exit_of_job(job: dict[str, Any]) -> Exit:
    """The exit code that tells how a job ended."""
    if job["state"] == "completed":
        return Exit.PARTIAL if job["outcome"] == "partial" else Exit.OK
    return Exit.CANCELLED if job["state"] == "cancelled" else Exit.FAILED


def tell_end(job: dict[str, Any]) -> None:
    """Say why a job did not complete; nothing for one that did."""
    if job["state"] == "failed":
        error = job["error"] or {}
        problem = {"code": error.get("code"), "detail": error.get("message"), "hint": error.get("hint")}
        click.echo(f"Job {job['id']} failed after {job['attempts']} attempt(s).\n{said(problem)}", err=True)
        click.echo(f"  It goes on from its last checkpoint with: haulier jobs retry {job['id']}", err=True)
    elif job["state"] == "cancelled":
        click.echo(f"Job {job['id']} was cancelled ({job['cancel_reason'] or 'user'}).", err=True)
    elif job["state"] == "open" and job["paused"]:
        reason = (job["error"] or {}).get("message", "on request")
        click.echo(f"Job {job['id']} is paused: {reason}. What it has done so far is kept.", err=True)
        click.echo(f"  The refused rows: haulier jobs failed-rows {job['id']}", err=True)
        click.echo(f"  To give it up: haulier jobs cancel {job['id']}", err=True)
