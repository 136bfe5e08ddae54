"""How many cheap jobs a worker claims at once: as many as it gets through in four hundredths of a second.

A statement for many jobs costs less of each than one for few. But what a worker holds no other can take, what is more
urgent stands behind it, and what it does not get to in time has to go back.
"""

from __future__ import annotations

from typing import Final

from app.domain.job_types import CHEAP_AT_ONCE

RUN_FOR_S: Final = 0.04
MOST: Final = 200


class Portion:
    """Follows one slot from claim to claim; ``size`` is what the next may take."""

    def __init__(self) -> None:
        self.size = CHEAP_AT_ONCE

    def rest(self) -> None:
        """The slot is idle: what comes next may be few jobs, and slower ones."""
        self.size = min(self.size, CHEAP_AT_ONCE)

    def ran(self, claimed: int, *, begun: int, took_s: float) -> None:
        """Of ``claimed`` jobs ``begun`` (1 or more) were begun, in ``took_s`` seconds.

        Only where a claim got all it asked for are there more, and then the next is twice as large at most: jobs that
        follow may be others.
        """
        wanted = 2 * self.size if claimed >= self.size else CHEAP_AT_ONCE
        fitting = int(begun * RUN_FOR_S / max(took_s, 1e-6))
        self.size = max(1, min(wanted, fitting, MOST))
