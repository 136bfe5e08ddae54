"""``haulier schedules``: look at timetables, hold them, and make a job of one now."""

from __future__ import annotations

from typing import Any, Final

import click

from app.cli import output
from app.cli.client import Client
from app.cli.jobs import finish
from app.cli.target import json_option, with_client
from app.cli.watching import watch

_ID: Final = click.argument("schedule_id", type=click.UUID)
_ALONE: Final = click.option("--leave-jobs", is_flag=True, help="The timetable alone, not its jobs that are not over.")


@click.group()
def schedules() -> None:
    """Schedules: templates that make jobs by rules."""


@schedules.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True)
@json_option
@with_client
def list_(client: Client, limit: int, as_json: bool) -> None:
    """List schedules, newest first."""
    found = client.pages("/v1/schedules", most=limit)
    if as_json:
        output.as_json(list(found))
        return
    output.columns(
        ("id", "name", "type", "paused", "next fire", "rules"),
        (
            (
                one["id"],
                one["name"],
                one["template"]["type"],
                "yes" if one["paused"] else "no",
                (one["next_fire_at"] or "")[:19],
                one["words"],
            )
            for one in found
        ),
    )


@schedules.command()
@_ID
@json_option
@with_client
def get(client: Client, schedule_id: Any, as_json: bool) -> None:
    """Show one schedule."""
    schedule = client.get(f"/v1/schedules/{schedule_id}")
    if as_json:
        output.as_json(schedule)
        return
    output.facts(
        [
            ("id", schedule["id"]),
            ("name", schedule["name"]),
            ("state", "paused" if schedule["paused"] else "fires"),
            ("rules", schedule["words"]),
            ("next fire", schedule["next_fire_at"]),
            ("missed fires", schedule["missed_policy"]),
            ("overlap", schedule["overlap_policy"]),
            ("version", schedule["version"]),
            ("created", f"{schedule['created_at']} by {schedule['created_by']}"),
            ("template", schedule["template"]),
        ]
    )


@schedules.command()
@_ID
@_ALONE
@json_option
@with_client
def pause(client: Client, schedule_id: Any, leave_jobs: bool, as_json: bool) -> None:
    """Stop a schedule from firing, and pause its jobs that are not over."""
    _tell(client.post(_steering(schedule_id, "pause", leave_jobs)), "is paused", as_json)


@schedules.command()
@_ID
@_ALONE
@json_option
@with_client
def resume(client: Client, schedule_id: Any, leave_jobs: bool, as_json: bool) -> None:
    """Let a schedule fire again, and its paused jobs go on."""
    _tell(client.post(_steering(schedule_id, "resume", leave_jobs)), "fires again", as_json)


def _steering(schedule_id: Any, verb: str, leave_jobs: bool) -> str:
    return f"/v1/schedules/{schedule_id}:{verb}" + ("?runs=false" if leave_jobs else "")


def _tell(schedule: dict[str, Any], what: str, as_json: bool) -> None:
    if as_json:
        output.as_json(schedule)
    else:
        click.echo(f"Schedule {schedule['name']} {what}; next fire: {schedule['next_fire_at'] or 'none'}.")


@schedules.command()
@_ID
@click.option("--watch", "wait", is_flag=True, help="Watch the job to its end.")
@json_option
@with_client
@click.pass_context
def trigger(context: click.Context, client: Client, schedule_id: Any, wait: bool, as_json: bool) -> None:
    """Make a job of a schedule now; its timetable stays as it is."""
    job = client.post(f"/v1/schedules/{schedule_id}:trigger")
    if wait:
        finish(context, client, watch(client, job["id"], quiet=as_json), as_json)
    if as_json:
        output.as_json(job)
    else:
        click.echo(f"Job {job['id']} is {job['state']}.")


@schedules.command()
@_ID
@click.option("--count", type=click.IntRange(1, 100), default=5, show_default=True, help="Fires to show.")
@json_option
@with_client
def preview(client: Client, schedule_id: Any, count: int, as_json: bool) -> None:
    """Say what a schedule's rules mean, and when it fires next."""
    found = client.get(f"/v1/schedules/{schedule_id}:preview", count=count)
    if as_json:
        output.as_json(found)
        return
    click.echo(f"{found['words']} ({found['timezone']})")
    output.columns(("next fires", "there"), ((one["at"], one["local"]) for one in found["fires"]))
