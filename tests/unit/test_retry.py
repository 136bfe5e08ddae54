"""The retry policy's formula."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.domain.retry import RetryPolicy, fixed_interval


def test_waits_double_up_to_the_longest() -> None:
    policy = RetryPolicy(10, 1.0, 2.0, 5.0, jitter=False)

    waits = [round(policy.wait_s(failures), 6) for failures in range(1, 6)]

    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]


@given(
    initial=st.floats(0.001, 1e6),
    coefficient=st.floats(1, 1000),
    longest=st.floats(0.001, 1e6),
    failures=st.integers(1, 10**9),
)
def test_no_wait_overflows_or_exceeds_the_longest(
    initial: float, coefficient: float, longest: float, failures: int
) -> None:
    wait_s = RetryPolicy(2, initial, coefficient, longest, jitter=False).wait_s(failures)

    assert 0 < wait_s <= longest


@given(attempts=st.integers(1, 50), failures=st.integers(1, 60))
def test_a_policy_of_n_attempts_waits_n_minus_1_times(attempts: int, failures: int) -> None:
    wait_s = RetryPolicy(max_attempts=attempts).next_wait_s(failures)

    assert (wait_s is None) == (failures >= attempts)


def test_a_receivers_own_wish_is_waited_for() -> None:
    assert RetryPolicy(jitter=True).next_wait_s(1, retry_after_s=90.0) == 90.0


def test_no_interval_means_no_wait() -> None:
    assert RetryPolicy(3, 0.0, 2.0, 60.0, jitter=False).next_wait_s(2) == 0.0


def test_three_retries_mean_four_attempts_of_every_failure() -> None:
    policy = fixed_interval(3, 30)

    assert (policy.max_attempts, policy.next_wait_s(3), policy.next_wait_s(4)) == (4, 30.0, None)
    assert not policy.transient_only


def test_a_policy_survives_storage() -> None:
    policy = RetryPolicy(5, 0.5, 1.5, 10.0, jitter=False, transient_only=False)

    assert RetryPolicy.from_json(policy.as_json()) == policy
