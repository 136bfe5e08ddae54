"""The platform's own periodic work. Users' schedules are armed in RedBeat beside it."""

from typing import Any, Final

_SMALL: Final = {"queue": "small"}

BEAT_SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "clean-up": {"task": "haulier.begin_duty", "args": ("clean_up",), "schedule": 600.0, "options": _SMALL},
    "sweep": {"task": "haulier.begin_duty", "args": ("sweep",), "schedule": 3600.0, "options": _SMALL},
    "gather": {"task": "haulier.begin_duty", "args": ("gather",), "schedule": 300.0, "options": _SMALL},
    "keep-mirrors": {"task": "haulier.keep_mirrors", "schedule": 60.0, "options": _SMALL},
    "keep-partitions": {"task": "haulier.keep_partitions", "schedule": 3600.0, "options": _SMALL},
}
