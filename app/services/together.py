"""Group commit: calls from many threads that one of them makes for all."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

Given = TypeVar("Given")
Made = TypeVar("Made")


class _Call(Generic[Given, Made]):
    __slots__ = ("error", "given", "leads", "made", "turn")

    def __init__(self, given: Given) -> None:
        self.given = given
        self.made: Made | None = None
        self.error: BaseException | None = None
        self.leads = False
        self.turn = threading.Lock()
        self.turn.acquire()


class Together(Generic[Given, Made]):
    """Does ``work`` at once for all calls that came while earlier ones were on their way.

    A call that finds fewer than ``at_once`` on their way begins by itself, so nothing waits when there is nothing to
    wait for.

    Args:
        work: Gives one result for each of the calls' values, in their order.
        at_once: How many times ``work`` may run at a time.
        most: Calls to take together.
        try_alone: Whether an error may be one call's fault; then each is done by itself, and nothing was done yet.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Given]], Sequence[Made]],
        *,
        at_once: int,
        most: int,
        try_alone: Callable[[Exception], bool],
    ) -> None:
        self._work = work
        self._most = most
        self._try_alone = try_alone
        self._lock = threading.Lock()
        self._waiting: deque[_Call[Given, Made]] = deque()
        self._leaders_left = at_once

    def __call__(self, given: Given) -> Made:
        """``work`` of ``given``; raises what ``work`` raised for the calls it was done with."""
        call: _Call[Given, Made] = _Call(given)
        with self._lock:
            if self._leaders_left:
                self._leaders_left -= 1
                call.leads = True
            else:
                self._waiting.append(call)
        if not call.leads:
            call.turn.acquire()
        if call.leads:
            self._lead(call)
        if call.error is not None:
            raise call.error
        return cast(Made, call.made)

    def _lead(self, call: _Call[Given, Made]) -> None:
        with self._lock:
            others = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most - 1))]
        calls = [call, *others]
        try:
            self._do(calls)
        except BaseException as error:  # noqa: BLE001 - every caller must hear of it, whatever it is
            for one in calls:
                one.error = error
        self._hand_on()
        for one in others:
            one.turn.release()

    def _do(self, calls: Sequence[_Call[Given, Made]]) -> None:
        try:
            for call, made in zip(calls, self._work([call.given for call in calls]), strict=True):
                call.made = made
        except Exception as error:
            if len(calls) == 1 or not self._try_alone(error):
                raise
            for call in calls:
                self._do_alone(call)

    def _do_alone(self, call: _Call[Given, Made]) -> None:
        try:
            [call.made] = self._work([call.given])
        except Exception as error:  # noqa: BLE001 - it is raised in the thread whose call it is
            call.error = error

    def _hand_on(self) -> None:
        with self._lock:
            if self._waiting:
                successor = self._waiting.popleft()
                successor.leads = True
                successor.turn.release()
            else:
                self._leaders_left += 1
