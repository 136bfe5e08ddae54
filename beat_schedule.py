"""The platform's own periodic work. Users' schedules are armed in RedBeat beside it."""

from typing import Any, Final

BEAT_SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "prune-idempotency-keys": {
        "task": "haulier.prune_idempotency_keys",
        "schedule": 600.0,
        "options": {"queue": "small"},
    },
}
