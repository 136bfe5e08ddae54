"""The platform's own periodic work. Users' schedules are armed in RedBeat beside it."""

from typing import Any, Final

_SMALL: Final = {"queue": "small"}

BEAT_SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "prune-idempotency-keys": {"task": "haulier.prune_idempotency_keys", "schedule": 600.0, "options": _SMALL},
    "prune-cache": {"task": "haulier.prune_cache", "schedule": 600.0, "options": _SMALL},
    "remove-expired-artifacts": {"task": "haulier.remove_expired_artifacts", "schedule": 600.0, "options": _SMALL},
    "remove-leftovers": {"task": "haulier.remove_leftovers", "schedule": 3600.0, "options": _SMALL},
    "gather-picker-values": {"task": "haulier.gather_picker_values", "schedule": 300.0, "options": _SMALL},
    "keep-partitions": {"task": "haulier.keep_partitions", "schedule": 3600.0, "options": _SMALL},
}
