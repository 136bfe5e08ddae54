"""``haulier demo``: the main job from end to end on a stack of its own, every figure checked, everything stopped."""

from __future__ import annotations

import hashlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from app.cli import demo_data, output
from app.cli.artifacts import fetch
from app.cli.books import first_failed, show_books, show_failed
from app.cli.client import Client
from app.cli.failures import Exit, failed, on_the_stores
from app.cli.imports import submit
from app.cli.target import json_option
from app.cli.transfer import upload
from app.cli.watching import tell_end, watch
from app.dataplane import witness
from app.persistence.sessions import make_sessions, open_engine
from app.runtime.stack import FIRST_PORT, Stack

ROWS: Final = 200_000
_PROCESSES: Final = ("web", "engine", "worker", "beat")
_TENANT: Final = "default"
_TABLE: Final = "contacts"
_COUNTRIES: Final = ("Germany", "France")
_SINCE: Final = "2023-01-01T00:00:00Z"
_COLUMNS: Final = ("uuid", "first_name", "last_name", "email", "title", "departments", "country", "created_at")
_WHERE: Final = {
    "keyword_match": {"must": {"country": list(_COUNTRIES)}},
    "range_query": {"must": {"created_at": {"gte": _SINCE}}},
}
_SHOW_FAILED: Final = 6


class Demo:
    """The story, its figures and how long each step took."""

    def __init__(self, folder: Path, *, rows: int, quiet: bool) -> None:
        self.folder = folder
        self.rows = rows
        self.quiet = quiet
        self.steps: list[tuple[str, float]] = []
        self.checks: list[tuple[str, Any, Any]] = []

    def say(self, line: str = "") -> None:
        """A line for a person."""
        if not self.quiet:
            click.echo(line)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step of the story, timed."""
        self.say(f"\n{len(self.steps) + 1}. {title}")
        started_at = time.monotonic()
        yield
        self.steps.append((title, time.monotonic() - started_at))

    def check(self, what: str, expected: Any, found: Any) -> None:
        """Two figures that must agree."""
        self.checks.append((what, expected, found))

    @property
    def agrees(self) -> bool:
        """Whether every pair of figures agrees, and there are some."""
        return bool(self.checks) and all(expected == found for _, expected, found in self.checks)

    def run(self, stack: Stack) -> None:
        """The story; ``stack`` is started here and stopped by the caller."""
        with self.step("Start PostgreSQL, Valkey, S3, web, engine, worker and beat"):
            stack.start(told=lambda line: self.say(f"   {line}"))
        self.tell(stack)

    def tell(self, stack: Stack) -> None:
        """The story from the key on, on a stack that runs."""
        with self.step("Make an API key"):
            made_key = Client(stack.url, stack.admin_key).post("/v1/keys", {"role": "member", "label": "haulier demo"})
            client = Client(stack.url, made_key["key"])
            self.say(f"   {made_key['role']} key {made_key['id']} of tenant {_TENANT}, for {stack.url}")
        made = self._make_file()
        books = self._import(client, made)
        exported, target = self._export(client)
        with self.step("Check against the database, by SQL that shares nothing with the above"):
            self._check(stack, made, books, exported, target)

    def _make_file(self) -> demo_data.Made:
        with self.step(f"Make a contacts CSV: {output.number(self.rows)} rows, {len(demo_data.HEADERS)} columns"):
            made = demo_data.make(self.folder / "contacts.csv", rows=self.rows)
            bad = ", ".join(f"{count} {kind}" for kind, count in made.bad.items())
            self.say(f"   {output.size(made.size_bytes)}; {sum(made.bad.values())} bad rows ({bad})")
            self.say(f"   {made.recurring} good rows bring a key again: their last line wins")
        return made

    def _import(self, client: Client, made: demo_data.Made) -> dict[str, int]:
        with self.step("Send it to S3 by presigned PUT"):
            ticket = upload(client, made.path, quiet=self.quiet)
            self.say(f"   it is {ticket['s3_key']}")
        with self.step("Import it: insert_csv_file"):
            job = self._done(client, submit(client, {"s3_key": ticket["s3_key"], "table": _TABLE}), "import")
            books: dict[str, int] = client.get(f"/v1/jobs/{job['id']}/result")["data"]["books"]
            if not self.quiet:
                self._show_import(client, job, books)
        return books

    def _show_import(self, client: Client, job: dict[str, Any], books: dict[str, int]) -> None:
        click.echo("\nThe books:")
        show_books(books)
        click.echo("\nThe first failed rows:")
        show_failed(first_failed(client, job["id"], _SHOW_FAILED))

    def _export(self, client: Client) -> tuple[dict[str, Any], Path]:
        target = self.folder / "export.csv"
        vql = {
            "where": _WHERE,
            "select_columns": list(_COLUMNS),
            "order_by": [{"order_by": "uuid", "order_direction": "asc"}],
        }
        with self.step(f"Export contacts of {' and '.join(_COUNTRIES)} since {_SINCE[:4]}: export_csv_file"):
            job = self._done(client, submit(client, {"table": _TABLE, "vql": vql}, "export_csv_file"), "export")
            result: dict[str, Any] = client.get(f"/v1/jobs/{job['id']}/result")["data"]
        with self.step("Download it by presigned URL"):
            fetch(client, job["id"], target, quiet=self.quiet)
            self.say(f"   {target}: {output.number(result['rows'])} rows, {output.size(result['bytes'])}")
        return result, target

    def _done(self, client: Client, job: dict[str, Any], title: str) -> dict[str, Any]:
        self.say(f"   job {job['id']}")
        ended = watch(client, job["id"], title=title, quiet=self.quiet, outlives_us=False)
        if ended["state"] != "completed":
            tell_end(ended)
            raise failed(f"the {title} ended {ended['state']}", code="demo.failed", hint="Its logs are in logs/.")
        return ended

    def _check(
        self, stack: Stack, made: demo_data.Made, books: dict[str, int], exported: dict[str, Any], target: Path
    ) -> None:
        """Compare what Haulier said with the file that was made and with what the database holds."""
        fates = ("loaded", "updated", "unchanged", "superseded", "skipped", "failed")
        engine = open_engine(stack.stores.database_url, application_name="haulier demo", pool_size=1)
        try:
            with make_sessions(engine).begin() as session:
                first, last = demo_data.key_range(made)
                in_table = witness.count_keys_between(session, _TENANT, _TABLE, first, last)
                chosen = witness.count_in_countries(session, _TENANT, _TABLE, _COUNTRIES, _SINCE)
                sha256 = witness.csv_sha256_in_countries(session, _TENANT, _TABLE, _COUNTRIES, _SINCE, columns=_COLUMNS)
        finally:
            engine.dispose()
        downloaded = target.read_bytes()
        self.check("rows read = rows in the file", made.rows, books["read"])
        self.check("what became of them adds up", books["read"], sum(books[fate] for fate in fates))
        self.check("failed rows = bad rows in the file", sum(made.bad.values()), books["failed"])
        self.check("rows in the table, counted by SQL = keys in the file", made.keys, in_table)
        self.check("rows exported = rows counted by SQL", chosen, exported["rows"])
        self.check("sha256 of the download = sha256 of a CSV written by SQL", sha256, _sha256(downloaded))
        for what, expected, found in self.checks:
            verdict = "agrees" if expected == found else f"DIFFERS: {expected} against {found}"
            self.say(f"   {what}: {_short(found)} {verdict}")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _short(value: Any) -> str:
    return output.number(value) if isinstance(value, int) else f"{value[:12]}…"


@click.command()
@click.option("--rows", type=click.IntRange(1_000, 5_000_000), default=ROWS, show_default=True)
@click.option(
    "--data",
    "data_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data here.  [default: a folder that is removed at the end]",
)
@click.option("--port", type=click.IntRange(1024, 65_531), default=FIRST_PORT, show_default=True)
@json_option
@click.pass_context
@on_the_stores
def demo(context: click.Context, /, *, rows: int, data_dir: Path | None, port: int, as_json: bool) -> None:
    """Import and export a generated file on a stack of its own, check every figure, and stop it all."""
    # A demo that is told to end stops what it started.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    started_at = time.monotonic()
    folder = data_dir.resolve() if data_dir else _throw_away()
    story = Demo(folder, rows=rows, quiet=as_json)
    stack = Stack(folder, port=port, processes=_PROCESSES, throw_away=data_dir is None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        story.run(stack)
    finally:
        story.say("\nStopping it all.")
        if data_dir is None:
            stack.remove()
            shutil.rmtree(folder, ignore_errors=True)
        else:
            stack.stop()
        signal.signal(signal.SIGTERM, before)
    _summary(story, data_dir, time.monotonic() - started_at, as_json=as_json)
    context.exit(Exit.OK if story.agrees else Exit.FAILED)


def _throw_away() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="haulier-demo-"))
    # Run by root, the servers run as another user, who has to get there.
    folder.chmod(0o755)
    return folder


def _summary(story: Demo, data_dir: Path | None, total_s: float, *, as_json: bool) -> None:
    if as_json:
        output.as_json(
            {
                "agrees": story.agrees,
                "total_s": round(total_s, 3),
                "steps": [{"title": title, "seconds": round(seconds, 3)} for title, seconds in story.steps],
                "checks": [{"what": what, "expected": one, "found": other} for what, one, other in story.checks],
            }
        )
        return
    click.echo("\nHow long it took:")
    for title, seconds in story.steps:
        click.echo(f"  {seconds:6.1f} s  {title}")
    click.echo(f"  {total_s:6.1f} s  in all, with stopping")
    click.echo("\nEvery figure agrees." if story.agrees else "\nSome figures differ: see above.")
    where = f" --data {data_dir}" if data_dir else ""
    click.echo(
        f"\nHow to go on:\n"
        f"  haulier up{where}                                start it to stay; prints the address, a key and /docs\n"
        f"  haulier import FILE.csv --table contacts{where}  import a file of your own\n"
        f"  haulier export --table contacts -o out.csv{where}\n"
        f"  haulier tables create FILE.json{where}           declare a table of your own"
    )
