"""Celery's settings, derived from ours; each line that matters says why."""

from __future__ import annotations

from typing import Any, Final

from config.settings import Settings

QUEUES: Final = ("data", "small", "http", "retry")
GROWING_QUEUES: Final = ("data", "retry")
"""Those whose workers have a process for each slot, and can have more or fewer of them while they run."""
HOUSEKEEPING_QUEUE: Final = "small"


def celery_config(settings: Settings) -> dict[str, Any]:
    """The configuration of the Celery app and of the one that only sends bells."""
    redis_url = settings.redis_url.get_secret_value()
    return {
        "broker_url": redis_url,
        # No result backend: Postgres holds what became of a job, and half of the Redis connections go.
        "task_ignore_result": True,
        # A message is acknowledged before its job starts, so Redis never redelivers one that runs; the lease of the
        # worker's slot is what brings a lost job back.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "task_publish_retry": False,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_max_tasks_per_child": 200,
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_protocol": 2,
        "task_default_queue": HOUSEKEEPING_QUEUE,
        "task_create_missing_queues": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": 3600,
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 5,
        },
        "timezone": "UTC",
        "enable_utc": True,
        "beat_scheduler": "app.scheduling.beat.AlarmScheduler",
        "beat_max_loop_interval": 1,
        "redbeat_lock_timeout": 10,
        "redbeat_redis_url": redis_url,
        "redbeat_redis_options": {"socket_timeout": 5, "socket_connect_timeout": 3, "health_check_interval": 5},
        "redbeat_key_prefix": settings.redbeat_key_prefix,
    }
