"""Calls of many threads that one of them makes for all."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest

from app.services.together import Together


def never(_: Exception) -> bool:
    return False


def test_calls_that_come_while_one_is_on_its_way_travel_together() -> None:
    gate, sizes = threading.Event(), []

    def work(given: Sequence[int]) -> list[int]:
        sizes.append(len(given))
        gate.wait(5)
        return [number * 2 for number in given]

    together = Together(work, at_once=1, most=100, try_alone=never)
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(together, 0)
        while not sizes:
            sleep(0.001)
        rest = [pool.submit(together, number) for number in range(1, 10)]
        while len(together._waiting) < 9:
            sleep(0.001)
        gate.set()

        assert [first.result(), *(call.result() for call in rest)] == [number * 2 for number in range(10)]
    assert sizes == [1, 9]


def test_no_more_than_most_travel_together_and_none_is_forgotten() -> None:
    sizes = []

    def work(given: Sequence[int]) -> list[int]:
        sizes.append(len(given))
        sleep(0.002)
        return list(given)

    together = Together(work, at_once=2, most=3, try_alone=never)
    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(together, range(200))) == list(range(200))

    assert max(sizes) <= 3
    assert sum(sizes) == 200


def test_a_fault_of_one_call_is_raised_where_it_was_made() -> None:
    gate = threading.Event()

    def work(given: Sequence[int]) -> list[int]:
        gate.wait(5)
        if 7 in given:
            raise ValueError("seven")
        return list(given)

    together = Together(work, at_once=1, most=100, try_alone=lambda error: isinstance(error, ValueError))
    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(together, number) for number in range(10)]
        while len(together._waiting) < 9:
            sleep(0.001)
        gate.set()

        assert [call.result() for number, call in enumerate(calls) if number != 7] == [0, 1, 2, 3, 4, 5, 6, 8, 9]
        with pytest.raises(ValueError, match="seven"):
            calls[7].result()


def test_a_failure_of_all_reaches_all_and_the_next_call_begins_anew() -> None:
    broken = [True]

    def work(given: Sequence[int]) -> list[int]:
        if broken[0]:
            raise OSError("away")
        return list(given)

    together = Together(work, at_once=1, most=100, try_alone=never)
    with pytest.raises(OSError, match="away"):
        together(1)
    broken[0] = False

    assert together(2) == 2
