"""Retry policies that make no sense are refused where they stand."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Client


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("maximum_attempts", "0"),
        ("maximum_attempts", "1" + 400 * "0"),
        ("maximum_attempts", "NaN"),
        ("initial_interval", "NaN"),
        ("initial_interval", "1e400"),
        ("initial_interval", "-1"),
        ("initial_interval", '"5x"'),
        ("maximum_interval", "1" + 400 * "0"),
        ("backoff_coefficient", "Infinity"),
        ("backoff_coefficient", "1" + 400 * "0"),
        ("backoff_coefficient", "NaN"),
    ],
    ids=lambda value: value[:20],
)
def test_a_number_that_no_policy_can_have_is_422_with_its_pointer(member: Client, field: str, value: str) -> None:
    body = f'{{"type": "echo", "retry": {{"{field}": {value}}}}}'

    answer = member.call("POST", "/v1/jobs", data=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422, answer.get_json()
    assert [fault["pointer"] for fault in answer.get_json()["errors"]] == [f"/retry/{field}"]


def test_a_priority_in_the_resources_that_is_no_number_either_is_422(member: Client) -> None:
    body = '{"type": "echo", "resources": {"priority": NaN}}'

    answer = member.call("POST", "/v1/jobs", data=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422, answer.get_json()
    assert "/resources/priority" in [fault["pointer"] for fault in answer.get_json()["errors"]]
