"""``haulier jobs log``: what happened to a job and what its type logged."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import click

from app.cli.client import Client
from app.cli.target import json_option, with_client

_PAUSE_S: Final = 1.0
_SAID: Final = ("timestamp", "level", "event", "job_id", "position", "start")
_OVER: Final = ("completed", "failed", "cancelled")


@click.command("log")
@click.argument("job_id", type=click.UUID)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is over.")
@json_option
@with_client
def log_(client: Client, job_id: Any, as_json: bool, *, follow: bool) -> None:
    """Show a job's log, while it runs too."""
    position = "0.0.0"
    while True:
        # Asked before the lines are read: what a job that is over has said is all there then.
        is_over = not follow or client.get(f"/v1/jobs/{job_id}")["state"] in _OVER
        for text in b"".join(client.stream(f"/v1/jobs/{job_id}/log", after=position)).splitlines():
            line = json.loads(text)
            position = line["position"]
            click.echo(text.decode() if as_json else _told(line))
        if is_over:
            return
        time.sleep(_PAUSE_S)


def _told(line: dict[str, Any]) -> str:
    facts = " ".join(f"{name}={value}" for name, value in line.items() if name not in _SAID)
    return f"{line['timestamp']} {line['level']:<7} {line['event']} {facts}".rstrip()
