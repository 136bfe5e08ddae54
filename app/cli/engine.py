"""``haulier engine``: runs the engine until it is told to stop."""

from __future__ import annotations

import signal

import click

from app.engine.loop import Engine
from app.telemetry.logs import set_up_logging
from config.memory import settle_in
from config.process import settings


@click.command()
def engine() -> None:
    """Run the engine: admits, rings, rescues and ends what is overdue. One leads, others wait."""
    set_up_logging(settings())
    running = Engine(settings())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: running.stop())
    settle_in()
    running.run()
