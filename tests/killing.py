"""How often the tests that kill at random moments do so: once, or ``KILL_RUNS`` times (``make chaos KILLS=50``)."""

from __future__ import annotations

import os
from typing import Final

SEEDS: Final = range(1, 1 + int(os.environ.get("KILL_RUNS", "1")))
