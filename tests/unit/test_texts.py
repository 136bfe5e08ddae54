"""Which values of a job type can be kept as JSON."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.errors import JobError
from app.domain.texts import check_json, storable_json


@pytest.mark.parametrize(
    "value",
    [None, {}, {"n": [1, 2.5, True]}, "\U0001f600", r"\u0000", r"\ud83d", {r"C:\udir": "\U0001f600"}],
    ids=["none", "empty", "nested", "astral", "escaped nul", "escaped half", "path"],
)
def test_what_json_and_postgres_can_hold_passes(value: Any) -> None:
    check_json(value, "result", code="job.result_invalid")


@pytest.mark.parametrize(
    "value",
    ["\0", {"\0": 1}, [{"n": ["\ud83d"]}], ("a", "\0"), "\ud83d\U0001f600"],
    ids=["nul", "name", "half of a pair", "tuple", "half before a pair"],
)
def test_text_that_postgres_cannot_hold_is_refused_however_deep(value: Any) -> None:
    with pytest.raises(JobError, match=r"U\+0000 or half of a surrogate pair"):
        check_json(value, "result", code="job.result_invalid")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x", {(1, 2): 3}], ids=["nan", "set", "bytes", "name"])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(JobError, match="cannot be kept as JSON"):
        check_json(value, "result", code="job.result_invalid")


def test_a_value_may_be_as_large_as_is_allowed_and_no_larger() -> None:
    check_json("x" * 8, "checkpoint", code="job.checkpoint_invalid", most_bytes=10)

    with pytest.raises(JobError, match="at most 10 bytes as JSON, got 11"):
        check_json("x" * 9, "checkpoint", code="job.checkpoint_invalid", most_bytes=10)


def test_what_is_said_of_a_failure_is_kept_whatever_it_holds() -> None:
    said = {"a\0": ["\ud83d", float("nan"), {1}, ("x" * 9, 7, None, True)]}

    kept = storable_json(said, longest=5)

    assert kept == {"a\\0": ["?", "nan", "{1}", ["xxxxx", 7, None, True]]}
