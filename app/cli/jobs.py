"""``haulier jobs``: look at jobs and steer them; and document 004's two runners."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import click

from app.cli import output
from app.cli.artifacts import artifacts_, download_
from app.cli.books import first_failed, show_books, show_failed
from app.cli.client import Client
from app.cli.failures import Exit
from app.cli.logs import log_
from app.cli.target import client_of, data_option, json_option, stores_environment, with_client
from app.cli.watching import exit_of_job, progress_text, tell_end, watch
from config.process import environment, settings

_BY_WEIGHT: Final = (Exit.OK, Exit.PARTIAL, Exit.CANCELLED, Exit.FAILED)
_STATES: Final = ("blocked", "open", "queued", "running", "retry_wait", "completed", "failed", "cancelled")
_FATES: Final = {
    "ended": "is cancelled.",
    "killed": "is being killed with its process.",
    "asked": "was asked to stop: it shares its process with other jobs.",
}


@click.group()
def jobs() -> None:
    """Jobs: what runs, what ran, and what became of it."""


jobs.add_command(artifacts_)
jobs.add_command(download_)
jobs.add_command(log_)


@jobs.command("list")
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, help="Only these; may be repeated.")
@click.option("--type", "types", multiple=True, help="Only these; may be repeated.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only with this label; may be repeated.")
@click.option("--system", is_flag=True, help="Instead of clients' jobs the system's own; for admins.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True)
@json_option
@with_client
def list_(
    client: Client,
    /,
    *,
    states: tuple[str, ...],
    types: tuple[str, ...],
    labels: tuple[str, ...],
    system: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List jobs, newest first."""
    chosen = {"state": list(states), "type": list(types), "label": list(labels), "system": system or None}
    found = client.pages("/v1/jobs", most=limit, **chosen)
    if as_json:
        output.as_json(list(found))
        return
    output.columns(
        ("id", "type", "state", "outcome", "rows", "created"),
        (
            (
                job["id"],
                job["type"],
                job["state"],
                job["outcome"] or "",
                output.number(job["progress"]["rows_done"]),
                job["created_at"][:19],
            )
            for job in found
        ),
    )


@jobs.command()
@click.argument("job_id", type=click.UUID)
@json_option
@with_client
def get(client: Client, job_id: Any, as_json: bool) -> None:
    """Show one job."""
    job = client.get(f"/v1/jobs/{job_id}")
    if as_json:
        output.as_json(job)
        return
    show_job(job)


def show_job(job: dict[str, Any]) -> None:
    """Print a job's facts."""
    error = job["error"] or {}
    output.facts(
        [
            ("id", job["id"]),
            ("type", job["type"]),
            ("state", job["state"] + (" (paused)" if job["paused"] else "")),
            ("outcome", job["outcome"]),
            ("progress", f"{job['progress']['percent']:g} %, {progress_text(job)}"),
            ("stage", job["progress"]["stage"]),
            ("attempts", f"{job['attempts']} of {job['retry']['maximum_attempts']}"),
            ("rescues", job["rescues"] or None),
            ("failed rows", job["counters"].get("failed") or None),
            ("error", f"{error.get('code')}: {error.get('message')}" if error else None),
            ("run after", job["run_after"]),
            ("created", f"{job['created_at']} by {job['created_by']}"),
            ("started", job["started_at"]),
            ("finished", job["finished_at"]),
            ("clone of", job["clone_of"]),
            ("config", job["config"]),
        ]
    )


@jobs.command()
@click.argument("job_id", type=click.UUID)
@json_option
@with_client
def why(client: Client, job_id: Any, as_json: bool) -> None:
    """Say what a job waits for."""
    job = client.get(f"/v1/jobs/{job_id}")
    waits = job["why_waiting"]
    if as_json:
        output.as_json(waits)
        return
    if waits is None:
        click.echo(f"Job {job_id} waits for nothing: it is {job['state']}.")
        return
    click.echo(f"Job {job_id} is {job['state']}.")
    output.columns(("waits for", "why"), ((one["cause"], one["message"]) for one in waits["reasons"]))
    output.facts([("place", waits["position"]), ("likely start", waits["likely_start_at"])])


@jobs.command("attempts")
@click.argument("job_id", type=click.UUID)
@json_option
@with_client
def attempts_(client: Client, job_id: Any, as_json: bool) -> None:
    """Show the first thousand times a worker began a job, and what came of each."""
    found = client.get(f"/v1/jobs/{job_id}/attempts", limit=1000)["items"]
    if as_json:
        output.as_json(found)
        return
    output.columns(
        ("attempt", "outcome", "started", "ended", "rows", "worker", "why"),
        (
            (
                one["attempt"],
                one["outcome"],
                one["started_at"][:19],
                (one["ended_at"] or "")[:19],
                output.number(one["rows_done"]),
                one["worker_name"],
                (one["error"] or {}).get("message") or one["reason"],
            )
            for one in found
        ),
    )


@jobs.command("watch")
@click.argument("job_id", type=click.UUID)
@json_option
@with_client
@click.pass_context
def watch_(context: click.Context, client: Client, job_id: Any, as_json: bool) -> None:
    """Watch a job to its end; the exit code tells how it ended."""
    finish(context, client, watch(client, str(job_id), quiet=as_json), as_json)


@jobs.command("wait")
@click.argument("job_ids", type=click.UUID, nargs=-1, required=True)
@json_option
@with_client
@click.pass_context
def wait_(context: click.Context, client: Client, job_ids: Sequence[Any], as_json: bool) -> None:
    """Wait for several jobs; exits with 0 only when every one of them completed."""
    ended = [watch(client, str(job_id), title=str(job_id), quiet=as_json) for job_id in job_ids]
    if as_json:
        output.as_json(ended)
    else:
        output.columns(("job", "type", "state"), ((job["id"], job["type"], job["state"]) for job in ended))
    context.exit(max(map(exit_of_job, ended), key=_BY_WEIGHT.index))


def finish(context: click.Context, client: Client, job: dict[str, Any], as_json: bool) -> None:
    """Tell how a job ended, and exit with the code for that."""
    if as_json:
        output.as_json(job)
    else:
        books = ((client.get(f"/v1/jobs/{job['id']}/result")["data"] or {}) if job["finished_at"] else {}).get("books")
        if books:
            show_books(books)
        tell_end(job)
    context.exit(exit_of_job(job))


@jobs.command()
@click.argument("job_id", type=click.UUID)
@json_option
@with_client
def cancel(client: Client, job_id: Any, as_json: bool) -> None:
    """End a waiting job; ask a running one to stop."""
    job = client.post(f"/v1/jobs/{job_id}:cancel")
    if as_json:
        output.as_json(job)
    elif job["state"] == "cancelled":
        click.echo(f"Job {job_id} is cancelled.")
    else:
        click.echo(f"Job {job_id} was asked to stop.")


@jobs.command()
@click.argument("job_id", type=click.UUID)
@json_option
@with_client
def terminate(client: Client, job_id: Any, as_json: bool) -> None:
    """End a job now: one that runs is killed, where its process is its own."""
    answer = client.post(f"/v1/jobs/{job_id}:terminate")
    if as_json:
        output.as_json(answer)
    else:
        click.echo(f"Job {job_id} {_FATES[answer['fate']]}")


@jobs.command()
@click.argument("job_id", type=click.UUID)
@json_option
@with_client
def pause(client: Client, job_id: Any, as_json: bool) -> None:
    """Keep a job from starting; one that runs stops at its next checkpoint."""
    job = client.post(f"/v1/jobs/{job_id}:pause")
    if as_json:
        output.as_json(job)
    elif job["state"] == "running":
        click.echo(f"Job {job_id} was asked to stop at its next checkpoint, and waits there.")
    else:
        click.echo(f"Job {job_id} is paused.")


@jobs.command()
@click.argument("job_id", type=click.UUID)
@json_option
@with_client
def resume(client: Client, job_id: Any, as_json: bool) -> None:
    """Let a paused job go on from its checkpoint."""
    job = client.post(f"/v1/jobs/{job_id}:resume")
    if as_json:
        output.as_json(job)
    else:
        click.echo(f"Job {job_id} is {job['state']}.")


@jobs.command()
@click.argument("job_id", type=click.UUID, required=False)
@json_option
@data_option
def retry(job_id: Any | None, data_dir: Path | None, as_json: bool) -> None:
    """Open a failed or cancelled job again; without JOB_ID, run the worker of retried Connectra jobs."""
    if job_id is None:
        _run_worker("retry", 1, data_dir)
    job = client_of(data_dir).post(f"/v1/jobs/{job_id}:retry")
    if as_json:
        output.as_json(job)
    else:
        click.echo(f"Job {job_id} is {job['state']} again; it goes on from its checkpoint.")


@jobs.command("first_time")
@click.option("--parallel", type=click.IntRange(1), help="Jobs at once.  [default: PARALLEL_JOBS, else 4]")
@data_option
def first_time(parallel: int | None, data_dir: Path | None) -> None:
    """Run the worker of data jobs: imports and exports."""
    _run_worker("data", parallel or settings().data_slots, data_dir)


def _run_worker(queue: str, slots: int, data_dir: Path | None) -> None:
    """Become a Celery worker; does not return."""
    variables = {**environment(), **(stores_environment(data_dir) if data_dir else {})}
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-Q", queue, "-n", f"{queue}-{os.getpid()}@%h"]
    command += ["--pool", "prefork", "-c", str(slots), "--without-gossip", "--without-mingle"]
    sys.stdout.flush()
    os.execvpe(sys.executable, command, variables)  # noqa: S606 - ourselves, without a shell


@jobs.command()
@click.argument("job_id", type=click.UUID)
@click.option("--watch", "wait", is_flag=True, help="Watch the new job to its end.")
@json_option
@with_client
@click.pass_context
def clone(context: click.Context, client: Client, job_id: Any, wait: bool, as_json: bool) -> None:
    """Make a new job with the same type, config and options."""
    job = client.post(f"/v1/jobs/{job_id}:clone")
    _follow(context, client, job, wait=wait, as_json=as_json)


@jobs.command()
@click.argument("job_id", type=click.UUID)
@click.option("--code", "codes", multiple=True, help="Only rows refused with this code; may be repeated.")
@click.option(
    "--corrections",
    type=click.File("r", encoding="utf-8-sig"),
    help="A CSV file to correct rows by first, such as failed-rows --csv wrote.",
)
@click.option("--watch", "wait", is_flag=True, help="Watch the replay to its end.")
@json_option
@with_client
@click.pass_context
def replay(
    context: click.Context,
    client: Client,
    /,
    *,
    job_id: Any,
    codes: tuple[str, ...],
    corrections: TextIO | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Load the rows that an import refused once more, as they are or as they were corrected."""
    body: dict[str, Any] = {"codes": list(codes)} if codes else {}
    if corrections is not None:
        body["corrections"] = {"text": corrections.read()}
    job = client.post(f"/v1/jobs/{job_id}:replay", body)
    _follow(context, client, job, wait=wait, as_json=as_json)


@jobs.command()
@click.argument("job_id", type=click.UUID)
@click.option("--watch", "wait", is_flag=True, help="Watch the revert to its end.")
@json_option
@with_client
@click.pass_context
def revert(context: click.Context, client: Client, /, *, job_id: Any, wait: bool, as_json: bool) -> None:
    """Take back what a revertible job wrote, but for rows that others changed since."""
    job = client.post(f"/v1/jobs/{job_id}:revert")
    _follow(context, client, job, wait=wait, as_json=as_json)


def _follow(context: click.Context, client: Client, job: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    """Show a new job, or watch it to its end."""
    if wait:
        finish(context, client, watch(client, job["id"], quiet=as_json), as_json)
    if as_json:
        output.as_json(job)
    else:
        click.echo(f"Job {job['id']} is {job['state']}.")


@jobs.command("failed-rows")
@click.argument("job_id", type=click.UUID)
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True)
@click.option(
    "-o",
    "--csv",
    "file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Write all of them to this CSV file (- is standard output).",
)
@json_option
@with_client
def failed_rows(client: Client, job_id: Any, limit: int, file: Path | None, as_json: bool) -> None:
    """Show the rows that a job refused, and why."""
    path = f"/v1/jobs/{job_id}/failed-records"
    if file is not None:
        with click.open_file(str(file), "wb") as sink:
            for block in client.stream(path, format="csv"):
                sink.write(block)
        if str(file) != "-":
            click.echo(f"Wrote {file}.", err=True)
        return
    records = first_failed(client, str(job_id), limit)
    if as_json:
        output.as_json(records)
    elif records:
        show_failed(records)
    else:
        click.echo("No row failed.")
