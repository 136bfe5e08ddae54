"""Logging: one JSON object a line, the event's name first, or plain text for people."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from app.telemetry.trace import add_id
from config.settings import Settings

_QUIET = (
    "celery.worker.strategy",
    "celery.app.trace",
    "kombu",
    "amqp",
    "botocore",
    "boto3",
    "urllib3",
    "s3transfer",
    "celery.redirected",
    "alembic",
)


def set_up_logging(settings: Settings) -> None:
    """Send every log record of this process to standard error in one form."""
    before: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        add_id,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer() if settings.log_json else structlog.dev.ConsoleRenderer(colors=False)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
