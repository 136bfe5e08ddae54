"""Connectra's words."""

from __future__ import annotations

import pytest

from app.dialects.connectra import mapping
from app.domain.jobs import Origin
from app.domain.lifecycle import JobState
from tests.factories import a_job


def test_every_state_has_a_word() -> None:
    assert set(mapping.WORD) == set(JobState)


def test_every_state_is_found_by_the_word_it_is_shown_with() -> None:
    for state in JobState:
        for attempts in (0, 1, 2):
            job = a_job(state=state, attempts=attempts)
            word = mapping.word_of(job)

            assert any(found is state and flag in (None, job.is_at_retry) for found, flag in mapping.STATES[word]), (
                f"{state} after {attempts} attempts is shown as {word}"
            )


@pytest.mark.feature("S4-45")
def test_a_queued_job_is_retry_in_queued_after_an_attempt() -> None:
    assert mapping.word_of(a_job(state=JobState.QUEUED)) == "in_queue"
    assert mapping.word_of(a_job(state=JobState.QUEUED, attempts=1)) == "retry_in_queued"


@pytest.mark.feature("S4-103")
def test_retry_count_is_the_maximum_of_retries() -> None:
    count, interval_s, policy = mapping.retry_of({"retry_count": 3})

    assert (count, interval_s, policy.maximum_attempts) == (3, 30, 4)


@pytest.mark.feature("S4-96")
@pytest.mark.parametrize("value", [-1, 1.5, "x", "3", True, None])
def test_a_retry_count_that_is_no_count_is_refused_in_the_documents_words(value: object) -> None:
    with pytest.raises(mapping.ConnectraError) as refused:
        mapping.retry_of({"retry_count": value})

    assert refused.value.detail.startswith("ERR_INVALID_RETRY_COUNT: 'retry_count' must be a non-negative integer;")


@pytest.mark.feature("S4-65")
@pytest.mark.parametrize(("value", "limit"), [(None, 25), (0, 25), (1, 1), (100, 100)])
def test_limits_up_to_100_are_taken(value: int | None, limit: int) -> None:
    assert mapping.limit_of(value) == limit


@pytest.mark.feature("S4-65")
@pytest.mark.parametrize(
    ("value", "code"), [(101, "ERR_LIMIT_TOO_HIGH"), (-1, "ERR_INVALID_LIMIT"), ("5", "ERR_INVALID_LIMIT")]
)
def test_other_limits_are_refused(value: object, code: str) -> None:
    with pytest.raises(mapping.ConnectraError, match=code):
        mapping.limit_of(value)


@pytest.mark.feature("S4-33", "S4-97")
def test_an_export_without_columns_is_refused() -> None:
    with pytest.raises(mapping.ConnectraError, match="ERR_MISSING_SELECT_COLUMNS"):
        mapping.config_of("export_csv_file", {"service": "contact", "vql": {}}, batch_rows=500)


@pytest.mark.feature("S4-35")
def test_an_exports_page_size_is_no_limit_of_its_rows() -> None:
    config = mapping.config_of(
        "export_csv_file", {"service": "company", "vql": {"select_columns": ["name"], "limit": 500}}, batch_rows=500
    )

    assert config == {"table": "companies", "vql": {"select_columns": ["name"]}}


@pytest.mark.feature("S4-56")
def test_a_job_is_shown_with_what_was_posted() -> None:
    data = {"s3_key": "uploads/a.csv"}
    job = a_job(
        origin=Origin.CONNECTRA,
        state=JobState.COMPLETED,
        dialect={"job_data": data, "retry_count": 2, "retry_interval": 30},
        result={"message": "successfully loaded 2 of 2 records"},
    )

    body = mapping.job_body(job, [])

    assert body["data"] == data
    assert (body["retry_count"], body["retry_interval"], body["run_after"]) == (2, 30, None)
    assert body["job_response"] == {"messages": "Import completed successfully: successfully loaded 2 of 2 records"}
