"""How many cheap jobs of a class may stand admitted: about as many as are gone by the time anybody looks again.

Whoever comes next, of another tenant, stands behind what is admitted, so that is to be little; but a queue that is
empty before the next look leaves workers idle. A bound in jobs says neither for jobs of a millisecond.

Jobs that nobody else waits with may stand admitted ahead of their turn, however many: whoever comes next passes them.
"""

from __future__ import annotations

from typing import Final

HORIZON_S: Final = 0.5
"""For how long what stands admitted should last: some looks of the engine."""
MOST: Final = 50
"""Times the bound; an installation's bound is what it may always be."""
_FORGET_S: Final = 2.0
AHEAD: Final = 100
"""Times the bound: jobs of a class of the cheap queue that may be admitted with those ahead of their turn."""
FIRST_TURN_S: Final = 1.0
"""From the submit to the first turn of those ahead: until then they are stored and, mostly, begun."""
TURN_S: Final = 0.001
"""From turn to turn. Cheap jobs that take longer fall behind their turns, and wait with others once there are any."""


class Pace:
    """Follows one class of a queue from look to look, of which there is one whenever jobs of it wait to be admitted."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._room = bound
        self._stood = 0
        self._at_s = float("-inf")

    def room(self, queued: int, *, now_s: float) -> int:
        """How many jobs may stand admitted now, when ``queued`` do."""
        elapsed_s = now_s - self._at_s
        if not self._stood or elapsed_s > _FORGET_S:
            wanted = self._bound
        elif queued == 0:
            wanted = 2 * self._room
        else:
            gone = max(0, self._stood - queued)
            # No faster down than by half: a look that comes at once after another sees nothing gone.
            wanted = max(self._room // 2, round(gone * HORIZON_S / max(elapsed_s, 0.001)))
        self._room = min(max(wanted, self._bound), MOST * self._bound)
        self._at_s = now_s
        return self._room

    def stands(self, queued: int) -> None:
        """So many stand admitted from this look on."""
        self._stood = queued
