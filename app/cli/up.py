"""``haulier up`` and ``haulier down``: the whole server on this machine, in the foreground or not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click

from app.domain.errors import HaulierError
from app.runtime import stack as stacks
from app.runtime.stack import FIRST_PORT, Stack
from app.runtime.supervisor import procfile
from config.process import settings

_COLOURS: Final = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_yellow")
_DETACHED_START_S: Final = 120.0

_DATA: Final = click.option(
    "--data",
    "data_dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var"),
    show_default=True,
    help="Where everything is kept.",
)


@click.command()
@_DATA
@click.option(
    "--port",
    type=click.IntRange(1024, 65_531),
    default=FIRST_PORT,
    show_default=True,
    help="First of five ports: web, Flower, S3, Redis, Postgres. Others are used where these are taken.",
)
@click.option("--detach", is_flag=True, help="Return when it is up; 'haulier down' stops it.")
@click.option("--no-flower", is_flag=True, help="Leave out Flower, the page about the workers.")
@click.option("--json", "as_json", is_flag=True, help="Print addresses and key as JSON, and no logs.")
def up(data_dir: Path, port: int, detach: bool, no_flower: bool, as_json: bool) -> None:
    """Start Postgres, Valkey, S3 and every process of Haulier; keep them running until Ctrl-C."""
    if detach:
        state = _start_detached(data_dir, port, no_flower)
        _show(state, as_json, stop=f"Stop it with: haulier down --data {data_dir}")
        return
    settings()
    names = [program.name for program in procfile() if not (no_flower and program.name == "flower")]
    stack = Stack(data_dir, port=port, processes=names, echo=None if as_json else _echo(names))
    _run(stack, as_json)


@click.command()
@_DATA
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def down(data_dir: Path, as_json: bool) -> None:
    """Stop what 'haulier up' runs on a data directory, and whatever a killed one left behind."""
    try:
        stopped = stacks.down(data_dir)
    except HaulierError as error:
        raise _failure(error) from error
    if as_json:
        click.echo(json.dumps({"stopped": stopped, "data": str(data_dir.resolve())}))
    else:
        click.echo(f"Stopped. The data stay in {data_dir}." if stopped else f"Nothing runs on {data_dir}.")


def _run(stack: Stack, as_json: bool) -> None:
    """Start the stack, wait for a signal, and stop it; a second signal does not wait for jobs to hand back."""
    told_to_stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if told_to_stop.is_set():
            stack.hurry()
            return
        told_to_stop.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        stack.start(told=(lambda _: None) if as_json else (lambda step: click.echo(f"haulier: {step}", err=True)))
        _show(stack.state(), as_json, stop="Ctrl-C stops it.")
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        told_to_stop.set()
        with suppress(OSError):
            click.echo("haulier: stopping (again to stop at once)", err=True)
    except HaulierError as error:
        raise _failure(error) from error
    finally:
        told_to_stop.set()
        stack.stop()


def _start_detached(data_dir: Path, port: int, no_flower: bool) -> dict[str, Any]:
    """Start this command once more in a session of its own and wait until it is up; its ``up.json``."""
    data_dir = data_dir.resolve()
    logs = data_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "app.cli.up", "--data", str(data_dir), "--port", str(port), "--json"]
    log = logs / "up.log"
    with log.open("wb") as output:
        started = subprocess.Popen(  # noqa: S603 - ourselves
            command + (["--no-flower"] if no_flower else []),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _DETACHED_START_S
    while time.monotonic() < deadline:
        if started.poll() is not None:
            raise click.ClickException(log.read_text(errors="replace").strip().removeprefix("Error: "))
        state = _read_state(data_dir)
        if state is not None and state["pid"] == started.pid:
            return state
        time.sleep(0.1)
    started.terminate()
    raise click.ClickException(f"not up after {_DETACHED_START_S:g} s; see {logs}")


def _read_state(data_dir: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads((data_dir / "up.json").read_text())
    except (OSError, ValueError):
        return None
    return state


def _show(state: dict[str, Any], as_json: bool, *, stop: str) -> None:
    if as_json:
        click.echo(json.dumps(state))
        sys.stdout.flush()
        return
    lines = [
        "",
        f"  Haulier     {state['url']}",
        f"  API         {state['url']}/docs",
        f"  key         {state['key']}   (admin of tenant default)",
        *([f"  Flower      {state['flower_url']}"] if state["flower_url"] else []),
        f"  S3          {state['s3_endpoint']}   (bucket {state['s3_bucket']})",
        f"  data        {state['data']}   (logs in logs/, addresses and passwords in up.json)",
        "",
        f"  {stop}",
        "",
    ]
    click.echo("\n".join(lines))


def _echo(names: list[str]) -> Callable[[str, str], None]:
    width = max(len(name) for name in names)
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    lock = threading.Lock()

    def echo(name: str, line: str) -> None:
        # The terminal may be gone; the log file has the line.
        with lock, suppress(OSError, ValueError):
            click.echo(click.style(f"{name:<{width}} | ", fg=colours.get(name)) + line)

    return echo


def _failure(error: HaulierError) -> click.ClickException:
    return click.ClickException(error.detail + (f"\n{error.hint}" if error.hint else ""))


if __name__ == "__main__":
    up()
