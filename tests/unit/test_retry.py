"""The retry policy: its formula, its attempts, which failures it takes, and how requests change it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import ForbiddenError, InvalidRequestError, JobError, PermanentError, TransientError
from app.domain.retry import RetryChanges, RetryPolicy, fixed_interval, policy_of, retry_attempts, without_delay

EVERY_FAILURE = RetryPolicy(transient_only=False)
WHOLE_MS = st.integers(0, 10**10).map(lambda ms: ms / 1000)
POLICIES = st.builds(
    RetryPolicy,
    maximum_attempts=st.integers(1, 1000),
    initial_interval_s=WHOLE_MS,
    backoff_coefficient=st.floats(1, 1000),
    maximum_interval_s=WHOLE_MS,
    jitter=st.booleans(),
    transient_only=st.booleans(),
    non_retryable=st.lists(st.text(min_size=1), max_size=3).map(tuple),
)


def test_the_native_default_is_three_attempts_of_what_is_transient_doubling_from_one_second_to_sixty() -> None:
    assert RetryPolicy() == RetryPolicy(3, 1.0, 2.0, 60.0, jitter=True, transient_only=True, non_retryable=())


@pytest.mark.feature("S3-27")
@given(
    initial_s=st.floats(0.001, 1e6),
    coefficient=st.floats(1, 10),
    longest_s=st.floats(0, 1e9),
    attempt=st.integers(0, 100),
)
def test_a_wait_is_the_lesser_of_the_calculated_and_the_longest_interval(
    initial_s: float, coefficient: float, longest_s: float, attempt: int
) -> None:
    policy = RetryPolicy(1000, initial_s, coefficient, longest_s, jitter=False)

    assert policy.wait_s(attempt + 1) == min(initial_s * coefficient**attempt, longest_s)


@pytest.mark.feature("S3-25")
@given(policy=POLICIES, failures=st.integers(1, 10**9))
def test_no_wait_overflows_or_exceeds_the_longest(policy: RetryPolicy, failures: int) -> None:
    assert 0 <= policy.wait_s(failures) <= policy.maximum_interval_s


@given(policy=POLICIES, failures=st.integers(1, 1000))
def test_jitter_only_ever_shortens_a_wait(policy: RetryPolicy, failures: int) -> None:
    wait_s = policy.next_wait_s(failures)

    assert wait_s is None or 0 <= wait_s <= policy.wait_s(failures)


@pytest.mark.feature("S3-26")
@pytest.mark.parametrize(("coefficient", "waits"), [(1, [1.5, 1.5, 1.5]), (2, [1.5, 3.0, 6.0])])
def test_a_coefficient_of_one_waits_the_same_and_of_two_doubles(coefficient: float, waits: list[float]) -> None:
    policy = RetryPolicy(10, 1.5, coefficient, 60.0, jitter=False)

    assert [policy.wait_s(failures) for failures in (1, 2, 3)] == waits


@pytest.mark.feature("S3-22")
@given(attempts=st.integers(1, 50), failures=st.integers(1, 60))
def test_a_policy_of_n_attempts_waits_n_minus_1_times(attempts: int, failures: int) -> None:
    wait_s = RetryPolicy(maximum_attempts=attempts).next_wait_s(failures)

    assert (wait_s is None) == (failures >= attempts)


def test_a_receivers_own_wish_is_waited_for() -> None:
    assert RetryPolicy(jitter=True).next_wait_s(1, retry_after_s=90.0) == 90.0


@pytest.mark.feature("S4-103")
def test_three_retries_mean_four_attempts_of_every_failure() -> None:
    policy = fixed_interval(3, 30)

    assert (policy.maximum_attempts, policy.next_wait_s(3), policy.next_wait_s(4)) == (4, 30.0, None)
    assert not policy.transient_only


@pytest.mark.feature("S2-35")
@given(retries=st.integers(0, 100), failures=st.integers(1, 100))
def test_retry_attempts_come_after_the_first_one(retries: int, failures: int) -> None:
    assert (retry_attempts(retries).next_wait_s(failures) is not None) == (failures <= retries)


@pytest.mark.feature("S3-28")
def test_without_a_policy_document_003_has_three_attempts_and_no_delay() -> None:
    policy = without_delay()

    assert [policy.next_wait_s(failures) for failures in (1, 2, 3)] == [0.0, 0.0, None]
    assert policy.takes(ValueError())


@pytest.mark.parametrize(
    ("policy", "error", "taken"),
    [
        (RetryPolicy(), TransientError("busy"), True),
        (RetryPolicy(), JobError("no such file"), False),
        (RetryPolicy(), ValueError(), False),
        (EVERY_FAILURE, JobError("no such file"), True),
        (EVERY_FAILURE, ValueError(), True),
        (EVERY_FAILURE, PermanentError("a forbidden URL"), False),
        (EVERY_FAILURE, InvalidRequestError("a config that does not fit"), False),
        (EVERY_FAILURE, ForbiddenError("another's bucket"), False),
        (RetryPolicy(non_retryable=("http.timeout",)), TransientError("late", code="http.timeout"), False),
        (RetryPolicy(non_retryable=("http.timeout",)), TransientError("away", code="http.unresolved"), True),
        (RetryPolicy(transient_only=False, non_retryable=("LookupError",)), KeyError("x"), False),
        (RetryPolicy(transient_only=False, non_retryable=("job.crashed",)), KeyError("x"), False),
        (RetryPolicy(transient_only=False, non_retryable=("TransientError",)), TransientError("busy"), False),
    ],
)
def test_a_policy_says_which_failures_are_tried_again(policy: RetryPolicy, error: Exception, taken: bool) -> None:
    assert policy.takes(error) is taken


@given(policy=POLICIES)
def test_a_policy_survives_storage(policy: RetryPolicy) -> None:
    assert RetryPolicy.from_json(json.loads(json.dumps(policy.as_json()))) == policy


@given(policy=POLICIES, names=st.sets(st.sampled_from(sorted(RetryPolicy.__dataclass_fields__))))
def test_changes_survive_storage_and_leave_the_rest_of_a_policy_alone(policy: RetryPolicy, names: set[str]) -> None:
    changes = RetryChanges({name: getattr(policy, name) for name in names})

    kept = RetryChanges.from_json(json.loads(json.dumps(changes.as_json())))
    made = kept.applied_to(RetryPolicy(maximum_interval_s=10**8))

    assert kept == changes
    assert all(
        getattr(made, name) == getattr(policy if name in names else RetryPolicy(maximum_interval_s=10**8), name)
        for name in RetryPolicy.__dataclass_fields__
    )


@pytest.mark.parametrize(
    ("given", "longest_s"),
    [({}, 60.0), ({"initial_interval_s": 120.0}, 120.0), ({"initial_interval_s": 120.0, "maximum_interval_s": 5}, 5)],
)
def test_a_first_wait_that_is_given_is_not_cut_by_a_longest_one_that_is_not(
    given: dict[str, Any], longest_s: float
) -> None:
    assert RetryChanges(given).applied_to(RetryPolicy()).maximum_interval_s == longest_s


@pytest.mark.feature("S3-23")
def test_a_payloads_own_changes_go_over_those_of_its_batch() -> None:
    of_batch = RetryChanges({"maximum_attempts": 3, "initial_interval_s": 5.0})

    made = policy_of(RetryChanges({"maximum_attempts": 1}).over(of_batch), RetryPolicy())

    assert (made.maximum_attempts, made.initial_interval_s) == (1, 5.0)
