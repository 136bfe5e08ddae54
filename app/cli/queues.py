"""``haulier queues`` and ``haulier workers``: how full queues are, who serves them, and their steering."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from app.cli import output
from app.cli.client import Client
from app.cli.target import json_option, with_client


@click.group()
def queues() -> None:
    """Queues: how full they are; pause them, give their workers slots."""


@queues.command("list")
@json_option
@with_client
def list_(client: Client, as_json: bool) -> None:
    """List the queues; their numbers are over all tenants."""
    found = client.get("/v1/queues")["items"]
    if as_json:
        output.as_json(found)
        return
    output.columns(
        ("queue", "paused", "queued", "open", "running", "slots", "wanted", "oldest waits"),
        (
            (
                one["name"],
                "yes" if one["paused"] else "no",
                one["queued"],
                one["open"],
                one["running"],
                one["slots"],
                one["wanted_slots"],
                None if one["oldest_wait_s"] is None else output.duration(one["oldest_wait_s"]),
            )
            for one in found
        ),
    )


@queues.command()
@click.argument("queue")
@json_option
@with_client
def pause(client: Client, queue: str, as_json: bool) -> None:
    """Keep the jobs of QUEUE from starting, everybody's; those that run go on."""
    _tell(client.post(f"/v1/queues/{quote(queue, safe='')}:pause"), "is paused", as_json)


@queues.command()
@click.argument("queue")
@json_option
@with_client
def resume(client: Client, queue: str, as_json: bool) -> None:
    """Let the jobs of a paused QUEUE start."""
    _tell(client.post(f"/v1/queues/{quote(queue, safe='')}:resume"), "goes on", as_json)


@queues.command()
@click.argument("queue")
@click.argument("count", type=click.IntRange(1))
@json_option
@with_client
def slots(client: Client, queue: str, count: int, as_json: bool) -> None:
    """Give each worker of QUEUE that many slots, now and whenever one starts; no job is ended for it."""
    answer = client.put(f"/v1/workers/{quote(queue, safe='')}/concurrency", {"slots": count})
    _tell(answer, f"is to have {count} slots a worker", as_json)


def _tell(queue: dict[str, Any], what: str, as_json: bool) -> None:
    if as_json:
        output.as_json(queue)
    else:
        click.echo(f"Queue {queue['name']} {what}.")


@click.command()
@json_option
@with_client
def workers(client: Client, as_json: bool) -> None:
    """List the workers' slots and the jobs they hold."""
    found = client.get("/v1/workers")["items"]
    if as_json:
        output.as_json(found)
        return
    output.columns(
        ("queue", "worker", "pid", "since", "lease until", "draining", "jobs"),
        (
            (
                one["queue"],
                one["process"],
                one["pid"],
                one["started_at"][:19],
                one["lease_until"][:19],
                "yes" if one["draining"] else "no",
                ", ".join(one["job_ids"]),
            )
            for one in found
        ),
    )
