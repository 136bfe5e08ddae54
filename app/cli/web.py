"""``haulier web``: serves the API until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import threading
from functools import partial
from time import sleep
from typing import Final

import click
from flask import Flask
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server

from app.cli.failures import failed
from app.domain.job_types import discover
from app.domain.plugins import PluginError
from app.factory import create_app
from app.telemetry.logs import set_up_logging
from config.memory import settle_in
from config.process import settings

_GRACE_S: Final = 10
"""How long a stop waits for requests; open streams end with it."""
_TO_THE_ROOT_LOGGER: Final = {"handlers": {}, "formatters": {}, "loggers": {"_granian": {"propagate": True}}}


@click.command()
def web() -> None:
    """Serve the API, in ``HAULIER_WEB_PROCESSES`` processes of ``HAULIER_WEB_THREADS`` threads each."""
    chosen = settings()
    set_up_logging(chosen)
    _refuse_broken_plugins(chosen.job_types_package)
    _refuse_a_taken_port(chosen.host, chosen.port)
    Server(
        "app.factory:create_app",
        address=chosen.host,
        port=chosen.port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=chosen.web_processes,
        blocking_threads=chosen.web_threads,
        respawn_failed_workers=True,
        workers_kill_timeout=_GRACE_S,
        log_level=LogLevels.error,
        log_dictconfig=_TO_THE_ROOT_LOGGER,
    ).serve(target_loader=partial(_application, os.getpid()), wrap_loader=False)


def _refuse_broken_plugins(package: str) -> None:
    """A process that cannot load a job type would be started again for ever."""
    try:
        discover(package)
    except PluginError as error:
        raise failed(
            str(error),
            code="plugin.not_loaded",
            hint="Repair or uninstall the package; without it, jobs of its type would fail for good.",
        ) from None


def _refuse_a_taken_port(host: str, port: int) -> None:
    """The server's processes share their port (SO_REUSEPORT), so it would share it with another server too."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise failed(
            f"cannot listen at {host}:{port}: {os.strerror(error.errno or 0)}",
            code="web.address_taken",
            hint="Choose another with HAULIER_HOST and HAULIER_PORT.",
        ) from None


def _application(parent: int) -> Flask:
    """The application of one process, which ends when the process that started it is gone."""
    # The parent's handlers came along with the fork and would swallow a stop that comes while this loads.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()
    application = create_app()
    settle_in()
    return application


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
    sleep(_GRACE_S)
    os._exit(1)
