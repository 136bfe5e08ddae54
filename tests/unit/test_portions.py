"""How many cheap jobs a slot claims at once: what it gets through in a bounded time."""

from __future__ import annotations

from app.domain.job_types import CHEAP_AT_ONCE
from app.domain.portions import MOST, RUN_FOR_S, Portion


def sizes(portion: Portion, *, jobs: int, each_s: float) -> list[int]:
    """The claims of one slot while ``jobs`` that take ``each_s`` wait."""
    taken = []
    while jobs:
        claimed = min(jobs, portion.size)
        portion.ran(claimed, begun=claimed, took_s=claimed * each_s)
        taken.append(claimed)
        jobs -= claimed
    return taken


def test_claims_of_a_flood_of_quick_jobs_double_up_to_a_bound() -> None:
    assert sizes(Portion(), jobs=1000, each_s=0.0001) == [CHEAP_AT_ONCE, 100, MOST, MOST, MOST, MOST, 50]


def test_of_slower_jobs_as_many_are_claimed_as_fit() -> None:
    taken = sizes(Portion(), jobs=500, each_s=0.004)

    assert set(taken[1:]) == {round(RUN_FOR_S / 0.004)}


def test_jobs_that_take_longer_than_a_batch_may_are_claimed_one_by_one() -> None:
    taken = sizes(Portion(), jobs=CHEAP_AT_ONCE + 3, each_s=1.0)

    assert taken == [CHEAP_AT_ONCE, 1, 1, 1]


def test_what_was_claimed_and_not_begun_does_not_count_as_done() -> None:
    portion = Portion()

    portion.ran(CHEAP_AT_ONCE, begun=2, took_s=2 * RUN_FOR_S)

    assert portion.size == 1


def test_quick_jobs_after_slow_ones_are_soon_claimed_together_again() -> None:
    portion = Portion()
    portion.ran(CHEAP_AT_ONCE, begun=1, took_s=1.0)

    assert sizes(portion, jobs=127, each_s=0.0001) == [1, 2, 4, 8, 16, 32, 64]


def test_a_claim_that_found_few_is_followed_by_one_of_the_usual_size() -> None:
    portion = Portion()
    portion.size = MOST

    portion.ran(MOST - 1, begun=MOST - 1, took_s=0.001)

    assert portion.size == CHEAP_AT_ONCE


def test_a_slot_that_rests_begins_with_no_more_than_the_usual_size() -> None:
    large, small = Portion(), Portion()
    large.size, small.size = MOST, 3

    for portion in (large, small):
        portion.rest()

    assert (large.size, small.size) == (CHEAP_AT_ONCE, 3)
