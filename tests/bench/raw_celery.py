"""A peer of ``bulk_bench``: Celery as it comes, without a result backend, whose task answers what it was given."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

app = Celery("raw", broker=os.environ.get("HAULIER_BENCH_REDIS_URL"), set_as_current=False)
app.conf.update(
    worker_prefetch_multiplier=64,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
)


@app.task(name="echo")  # type: ignore[untyped-decorator] # Celery has no types
def echo(value: Any) -> Any:
    """Give the value back."""
    return value
