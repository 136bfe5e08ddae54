"""``haulier jobs artifacts`` and ``download``: the files that a job made, and their links."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click
import requests

from app.cli import output
from app.cli.client import Client
from app.cli.failures import Exit, failed
from app.cli.target import json_option, with_client
from app.cli.transfer import download


@click.command("artifacts")
@click.argument("job_id", type=click.UUID)
@click.option("--links", is_flag=True, help="Print only links, each of which downloads its file without a key.")
@json_option
@with_client
def artifacts_(client: Client, job_id: Any, as_json: bool, *, links: bool) -> None:
    """List the files that a job made."""
    found = client.get(f"/v1/jobs/{job_id}/artifacts")["items"]
    if as_json:
        output.as_json(found)
    elif links:
        for one in found:
            if one["url"] is not None:
                click.echo(one["url"])
    else:
        rows = ((one["name"], one["kind"], _size(one), one["sha256"] or "", one["id"]) for one in found)
        output.columns(("name", "kind", "size", "sha256", "id"), rows)


@click.command("download")
@click.argument("job_id", type=click.UUID)
@click.option("--name", help="Which of its files; without it, the one it exported.")
@click.option("-o", "--output", "target", type=click.Path(path_type=Path, dir_okay=False), required=True)
@json_option
@with_client
def download_(client: Client, job_id: Any, as_json: bool, *, name: str | None, target: Path) -> None:
    """Download a file that a job made, and check it; a download that was broken off goes on where it was."""
    if not target.parent.is_dir():
        raise failed(f"there is no folder {target.parent}", Exit.USAGE, code="usage.no_such_folder")
    file = fetch(client, str(job_id), target, name=name, quiet=as_json)
    if as_json:
        output.as_json(file)
    else:
        click.echo(f"{output.size(file['size_bytes'])} in {target}\nsha256 {file['sha256']}, as the job wrote it")


def fetch(client: Client, job_id: str, target: Path, *, name: str | None = None, quiet: bool = False) -> dict[str, Any]:
    """Download a file of a job (without ``name``: what it exported) and check it; its record, without its links."""
    artifact = _artifact(client, job_id, name)
    if artifact["size_bytes"] is None:
        return _made(artifact, target)
    download(
        lambda: str(_artifact(client, job_id, name)["url"]),
        target,
        size_bytes=artifact["size_bytes"],
        sha256=artifact["sha256"],
        quiet=quiet,
    )
    kept = ("id", "name", "content_type", "s3_key", "size_bytes", "sha256", "rows", "expires_at")
    return {**{one: artifact[one] for one in kept}, "path": str(target)}


def _size(artifact: dict[str, Any]) -> str:
    return "" if artifact["size_bytes"] is None else output.size(artifact["size_bytes"])


def _made(artifact: dict[str, Any], target: Path) -> dict[str, Any]:
    """Fetch what is made when it is asked for, and has no size or sum before."""
    try:
        answer = requests.get(artifact["url"], timeout=(5.0, 60.0))
        answer.raise_for_status()
    except requests.RequestException as error:
        raise failed(f"{artifact['name']} could not be fetched: {error}", Exit.SERVER, code="download.broken") from None
    target.write_bytes(answer.content)
    facts = {"size_bytes": len(answer.content), "sha256": hashlib.sha256(answer.content).hexdigest()}
    return {**{one: artifact[one] for one in ("id", "name", "content_type", "rows")}, **facts, "path": str(target)}


def _artifact(client: Client, job_id: str, name: str | None) -> dict[str, Any]:
    items = client.get(f"/v1/jobs/{job_id}/artifacts")["items"]
    wanted = [one for one in items if (one["kind"] == "export" if name is None else one["name"] == name)]
    if not wanted:
        raise failed(
            f"job {job_id} has no file" + (f" {name!r}" if name else " that it exported"),
            Exit.NOT_FOUND,
            code="artifact.not_found",
            hint=f"It has {', '.join(one['name'] for one in items)}." if items else None,
        )
    found: dict[str, Any] = wanted[0]
    if found.get("state") == "expired":
        raise failed(
            f"file {found['name']!r} was kept until {found['expires_at']}", Exit.NOT_FOUND, code="artifact.expired"
        )
    return found
